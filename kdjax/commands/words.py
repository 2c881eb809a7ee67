"""The arguments of every word of the command line, apart from what it does: help waits for nothing.

What a word does is in the module of its name, which is imported when it is done.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from kdjax.commands.arguments import Arguments, parser


def verify() -> Arguments:
    """`kdjax verify WORKDIR`: is everything that finished stages left still as it was written?

    kdjax verify runs/digits
    kdjax verify runs/digits/stages/cache-seed0-1a2b3c4d --teachers --samples=1000

    Reads every file (SHA-256), the arrays of every model and the checksums of every teacher cache. No
    config is needed, and nothing is changed. Prints one line for each stage:

        whole         everything is as it was written
        damaged       which file, what was found, what was expected, and what to do
        not finished  under way, or stopped: it continues when its run is started again
        not ours      not made by kdjax; in a folder that is whole, files that its manifest lacks

    With --teachers, the teachers of every finished cache are asked again for random examples and views,
    and the largest difference from what is stored is printed.

    Exit status 0 if nothing is damaged and no difference is larger than rounding explains, 1 otherwise, 2
    for bad input, such as a cache of other teachers, views or data.
    """
    found = parser("verify", verify.__doc__)
    found.add_argument("path", help="a work directory, or the folder of one stage in it")
    found.add_argument("--teachers", action="store_true", help="ask the teachers of caches again")
    asked = found.add_argument_group("with --teachers")
    asked.add_argument("--samples", type=int, help="pairs of example and view (default: 256)")
    asked.add_argument("--seed", type=int, help="that chooses them (default: 0)")
    asked.add_argument("--tolerance", type=float, help="default: what rounding explains")
    asked.add_argument("--data_dir", help="where TFDS datasets are; KDJAX_DATA_DIR by default")
    return found


def report() -> Arguments:
    """`kdjax report WORKDIR`: writes report.json and report.html of a work directory again.

    kdjax report runs/digits

    The report is of everything that is finished in it: use it after an array job, where each job ran
    one seed, or with a newer kdjax, whose page shows more. Nothing is trained or timed. The config and
    the command are taken from the last report.json, the devices and the versions from the stages; the
    data must be where it was (or name the place of TFDS datasets with --data_dir).

    Exit status 0 if the report was written, 2 if there is none to write.
    """
    found = parser("report", report.__doc__)
    found.add_argument("workdir", help="work directory of a run")
    found.add_argument("--data_dir", help="where TFDS datasets are; KDJAX_DATA_DIR by default")
    return found


def reexport() -> Arguments:
    """`kdjax reexport WORKDIR`: writes every exported file again, with the installed jax.

    kdjax reexport runs/digits

    Exported files can outlive the version of jax that they were written for. No config is needed: the
    models are as their manifests describe them. Each new file is compared with the live model, and with
    the old file if that can still be read; it replaces the old one only if they agree. The report is
    brought up to date.

    Exit status 0 if all files were written, 1 if one was not and is as it was, 2 if there is none.
    """
    found = parser("reexport", reexport.__doc__)
    found.add_argument("workdir", help="work directory of a run that has exported files")
    return found


def latency() -> Arguments:
    """`kdjax latency MODEL`: times an ONNX or LiteRT file in its runtime on this CPU.

    kdjax latency model.onnx --batch=64 --threads=1
    kdjax latency model.tflite

    Prints one line of JSON: the median and the 95th percentile of a call in milliseconds, the size of the
    file, also after gzip, and the peak memory of a process that loads and runs it. The inputs are random.
    Of a file that takes sound, also how long an example lasts, and the real-time factor: seconds of
    processing a second of sound.

    Exit status 0, or 2 if the file cannot be timed.
    """
    found = parser("latency", latency.__doc__)
    found.add_argument(
        "model", metavar="MODEL", help="MODEL.onnx or MODEL.tflite: its ending says its format"
    )
    found.add_argument("--batch", type=int, default=1, help="examples in a call (default: 1)")
    found.add_argument(
        "--length",
        type=int,
        help="positions of inputs that differ in length (default: the most that the file takes)",
    )
    found.add_argument("--threads", type=int, default=1, help="threads of an operator (default: 1)")
    found.add_argument(
        "--repeats", type=int, default=100, help="least number of calls (default: 100)"
    )
    found.add_argument(
        "--max_seconds",
        type=float,
        default=30.0,
        help="stop after so long all the same (default: 30)",
    )
    return found


def weights() -> Arguments:
    """`kdjax weights STAGE OUT`: writes the model that a stage has left as safetensors.

    kdjax weights runs/pets/stages/student-seed0-1a2b3c4d student.safetensors
    kdjax weights runs/pets/stages/student-seed0-1a2b3c4d student.safetensors --layout=timm

    The tensors have the names of the layout that the weights came in, if the model began with published
    ones, and those of kdjax otherwise. Trained and shrunk models are written in any layout of their
    family. A quantized model is written in kdjax's own: its layers as int8 with their scales beside them,
    or, with --numbers=float, as the numbers that these stand for; its BatchNorms are folded. A projector
    and the head of a task that has no classes are left out.

    The header of the file has the architecture, the number of classes and the preprocessing, as JSON
    under `kdjax`. Prints one line that says what was written.

    Exit status 0, or 2 if there is no such model or layout.
    """
    found = parser("weights", weights.__doc__)
    found.add_argument("stage", metavar="STAGE", help="folder of a finished stage: DIR/stages/...")
    found.add_argument("out", metavar="OUT", help="OUT.safetensors, which is written")
    found.add_argument("--layout", help="timm, torchvision, hf, kdjax, ...; see kdjax/weights")
    found.add_argument(
        "--numbers", choices=("integers", "float"), help="of a quantized model (default: integers)"
    )
    return found


def tables() -> Arguments:
    """`kdjax tables`: writes the tables of pages from kept results; nothing in them is typed by hand.

    kdjax tables keep runs/digits results/digits.json    keeps what a finished run found
    kdjax tables join a.json b.json both.json            one table of the seeds of several runs
    kdjax tables write README.md                         writes the tables of a page again
    kdjax tables check README.md kdjax/quant/README.md   shows what would be written differently

    A page asks for its tables in comments; `kdjax.report.tables` has the format.

    Exit status 0, 1 if a page differs from what would be written (check), 2 for bad input.
    """
    found = parser("tables", tables.__doc__)
    commands = found.add_subparsers(dest="command", required=True, metavar="keep|join|write|check")
    keep = commands.add_parser("keep", help="keep what a finished run found, as JSON")
    keep.add_argument("workdir", type=Path, help="work directory of the run")
    keep.add_argument("out", type=Path, help="the JSON file to write")
    join = commands.add_parser("join", help="put together what runs of other seeds found")
    join.add_argument("files", type=Path, nargs="+", help="JSON files of the same command, kept so")
    join.add_argument("out", type=Path, help="the JSON file to write")
    for name, told in (("write", "write the tables again"), ("check", "show what would differ")):
        one = commands.add_parser(name, help=told)
        one.add_argument("pages", type=Path, nargs="+", help="Markdown files")
    return found


def compress() -> Arguments:
    """`kdjax compress`: a published network and a folder of pictures in, a small checked file out.

    kdjax compress --weights=resnet18.safetensors --data=pictures --out=small --dry_run
    kdjax compress --weights=timm:resnet18.a1_in1k --data=pictures --budget=200kB --out=small

    Chooses the student, the views, the steps, what is pruned and how many bits there are, by rules that
    `kdjax/compress/README.md` states; writes the config that it uses, OUT/config.py, ready to edit; and
    runs it in OUT/run. With labels (folders of classes, or a table) the network is fine-tuned first, and
    the same student is trained on the labels alone, for comparison. Without labels the student learns to
    answer as the network does. The same command again goes on where it was stopped.

    Exit status 0; 1 if the file is over the budget, or a stage failed; 2 for bad input.
    """
    found = parser("compress", compress.__doc__)
    found.add_argument(
        "--weights",
        required=True,
        help="of the network: a .safetensors file, a folder of them, hf:owner/name or timm:name",
    )
    found.add_argument(
        "--data",
        required=True,
        help="a folder of pictures, .tar files, Arrow or Parquet files, an .npz file, or a .csv table",
    )
    found.add_argument("--out", required=True, help="directory of the result, made if absent")
    found.add_argument(
        "--budget",
        default="0.1x",
        help="what the file may cost: 200kB, 2ms a picture, or 0.5x the float parameters of the network "
        "(default: 0.1x)",
    )
    found.add_argument(
        "--labels",
        default="auto",
        help="auto (where the data has some), none, first or last (of the folders that it lies in), "
        "or a .csv of labels and of paths relative to it",
    )
    found.add_argument(
        "--encoder", help="the network as a config has it, where its weights do not tell"
    )
    found.add_argument(
        "--minutes", type=float, default=30.0, help="of training, about (default: 30)"
    )
    found.add_argument(
        "--test_share",
        type=float,
        default=0.1,
        help="of the pictures, kept for the test where no split is called so (default: 0.1)",
    )
    found.add_argument("--skip_broken", action="store_true", help="leave out broken pictures")
    found.add_argument("--seed", type=int, default=0, help="default: 0")
    found.add_argument(
        "--dry_run", action="store_true", help="print the plan and an estimate, and stop"
    )
    return found


def convert() -> Arguments:
    """`kdjax convert FILE OUT`: writes the weights in a checkpoint of torch as safetensors.

    kdjax convert resnet50.pth resnet50.safetensors
    kdjax convert checkpoint.pt teacher.safetensors --key=teacher --prefix=backbone.

    Reads what torch.save has written, of any version since 0.1.12, as a zip or as a stream. Torch is
    not needed, and nothing in the file is run: it may have tensors, names and plain values, and whatever
    else it asks for is refused. Dicts named state_dict, model or model_state_dict are found by
    themselves; `module.` and `_orig_mod.` before all names go. Nothing else is renamed, transposed or
    cast. Prints one line: what was taken, and what was left out.

    Exit status 0 if the file was written, 2 if the checkpoint cannot be read.
    """
    found = parser("convert", convert.__doc__)
    found.add_argument("file", type=Path, metavar="FILE", help="a .pth, .pt or .bin of torch.save")
    found.add_argument("out", type=Path, metavar="OUT", help="the file to write, NAME.safetensors")
    found.add_argument(
        "--key", default="", help="the dict that has the weights, such as teacher or model/encoder"
    )
    found.add_argument(
        "--prefix", default="", help="take only the names that begin so, and leave that away"
    )
    return found


def prepare() -> Arguments:
    """`kdjax prepare NAME`: downloads a TFDS dataset and prepares it as kdjax reads it, once.

    kdjax prepare cifar100 --data_dir=DIR
    kdjax prepare eurosat/rgb --data_dir=DIR

    Needs the extra `prepare`, which has TensorFlow; to train on what is prepared does not. What is
    prepared already stays as it is. Stopped and started again, it goes on with the files that were
    downloaded. Where there is no network, or where a dataset is not to be downloaded by a program, the
    line says which files to put where. Prints one line: where it is, and what a config calls it.

    Exit status 0 if it is there; 1 if the storage failed; 2 if it cannot be prepared.
    """
    found = parser("prepare", prepare.__doc__)
    found.add_argument("name", metavar="NAME", help="as TFDS has it: NAME or NAME/CONFIG:VERSION")
    found.add_argument("--data_dir", help="for TFDS datasets; KDJAX_DATA_DIR by default")
    found.add_argument(
        "--manual_dir",
        help="with files that are not to be downloaded (default: DATA_DIR/downloads/manual)",
    )
    return found


PARSERS: Mapping[str, Callable[[], Arguments]] = {
    one.__name__: one
    for one in (compress, prepare, convert, verify, report, reexport, latency, weights, tables)
}
"""By word."""
