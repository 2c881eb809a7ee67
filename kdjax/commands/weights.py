"""`kdjax weights STAGE OUT`: writes what a stage has left as safetensors.

Its arguments, and what it says of itself: `kdjax.commands.words.weights`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from kdjax import paths, tasks
from kdjax.artifacts import MANIFEST, Artifact, proof, tensors
from kdjax.artifacts.model import EncoderSpec, Spec, encoder_of
from kdjax.commands import words
from kdjax.types import BadFile, BadInput, Variables, under
from kdjax.weights import reading

OWN = "kdjax"


def main(given: Sequence[str]) -> int:
    """Writes the file.

    Returns:
      The exit status.

    Raises:
      BadInput: the folder is that of no finished stage, or its model has no such layout.
      StorageFailed: the file cannot be written.
    """
    args = words.weights().parse_args(given)
    out = paths.to_write(args.out, suffix=".safetensors", field="OUT")
    print(
        write(
            paths.parse(args.stage, field="STAGE"),
            os.fspath(out),
            layout=args.layout,
            numbers=args.numbers,
        )
    )
    return 0


def write(
    folder: epath.Path, out: str, *, layout: str | None, numbers: tensors.Numbers | None
) -> str:
    """Writes the model of a stage as safetensors; returns what was written, in one line.

    Args:
      folder: of the stage.
      out: the file.
      layout: whose names the tensors get; None for those that the weights came in, and kdjax's own where
        the model did not begin with published ones.
      numbers: of a quantized model: `integers`, with their scales, or `float`, what these stand for.

    Raises:
      BadInput, StorageFailed: see `main`.
    """
    artifact = _opened(folder)
    spec, variables = _model(artifact)
    quantized = isinstance(spec, Spec) and bool(spec.rules)
    if numbers is not None and not quantized:
        raise BadInput("--numbers", f"{folder.name} is not quantized", "leave it out")
    account = {} if quantized else _account(artifact)
    layout = layout or str(account.get("layout", OWN))
    if quantized and layout != OWN:
        raise BadInput(
            "--layout",
            f"{layout} has names for BatchNorms, and a quantized model has folded them",
            f"take --layout={OWN}, or write the float model that it was made of",
        )
    same = account.get("layout") == layout
    with under("", {"layout": "--layout"}):
        found = (
            tensors.in_integers(spec, variables, numbers=numbers or "integers")
            if isinstance(spec, Spec) and spec.rules
            else tensors.written(spec, variables, layout, account=account if same else None)
        )
    said = tensors.described(
        spec,
        numbers=(numbers or "integers") if quantized else None,
        frame=artifact.manifest.get("frame"),
    )
    reading.save(out, found, layout=layout, said=said)
    size = sum(array.nbytes for array in found.values())
    head = "the whole model" if isinstance(spec, Spec) else "the encoder alone"
    if isinstance(spec, Spec) and not isinstance(spec.task, tasks.Classification):
        head = "the encoder alone"
    return f"{out}: {len(found)} tensors ({layout}), {size:,} bytes, {head} of {folder.name}"


def _opened(folder: epath.Path) -> Artifact:
    if not (folder / MANIFEST).is_file():
        raise BadFile(
            folder, f"no finished stage: it has no {MANIFEST}", "name DIR/stages/STAGE-..."
        )
    return Artifact.alone(folder)


def _model(artifact: Artifact) -> tuple[Spec | EncoderSpec, Variables]:
    """What a stage left, with its variables."""
    if "encoder_model" in artifact.manifest:
        spec, read = encoder_of(artifact, field="STAGE")
        inside = {name: {"encoder": part} for name, part in read().items()}
        return spec, inside
    spec = Spec.of(artifact, field="STAGE")
    return spec, artifact.variables(spec.abstract())


def _account(artifact: Artifact) -> Mapping[str, Any]:
    """What is said of the published weights that a model began with; empty where it did not."""
    for manifest in _lineage(artifact):
        if "weights" in manifest:
            return manifest["weights"]
    return {}


def _lineage(artifact: Artifact) -> Iterator[Mapping[str, Any]]:
    """The manifests of a model and of those that it was made of, the last one first."""
    manifest: Mapping[str, Any] | None = artifact.manifest
    workdir = artifact.folder.parent.parent
    while manifest is not None:
        yield manifest
        fields = (manifest["config"].get(name) for name in ("start_from", "model", "leaves"))
        name = next((field for field in fields if isinstance(field, str)), None)
        mark = manifest.get("upstream", {}).get(name)
        folder = None if mark is None or name is None else proof.find(workdir, name, mark)
        manifest = None if folder is None else proof.read(folder)
