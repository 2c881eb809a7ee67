"""Small datasets that TFDS knows by their names, and prepares without TensorFlow: pictures as files."""

import hashlib
import io
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from tests import picture_files

NOWHERE = "http://nowhere.invalid/sheets.zip"


def archive() -> bytes:
    """Twelve pictures of two classes to learn from, four to test on, as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for split, n in (("train", 12), ("test", 4)):
            for i in range(n):
                image = picture_files.pixels(100 * (split == "test") + i, height=6, width=8)
                content = picture_files.encoded(image)
                file.writestr(zipfile.ZipInfo(f"{split}/{'ab'[i % 2]}/{i:02}.png"), content)
    return buffer.getvalue()


def told(url: str, content: bytes) -> dict[str, checksums.UrlInfo]:
    """What TFDS knows of a file, as its lists of checksums say it."""
    digest = hashlib.sha256(content).hexdigest()
    return {url: checksums.UrlInfo(tfds.core.utils.Size(len(content)), digest, "sheets.zip")}


class Sheets(tfds.core.GeneratorBasedBuilder):
    """Downloads one file."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = told(NOWHERE, archive())

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 8, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        (url,) = self.url_infos
        path = dl_manager.download(url)  # to unpack it, TFDS needs TensorFlow
        return {split: self._generate_examples(path, split) for split in ("train", "test")}

    def _generate_examples(self, path, split):
        with zipfile.ZipFile(path) as file:
            for name in sorted(file.namelist(), key=lambda name: name.split("/")[-1]):
                own, label, number = name.removesuffix(".png").split("/")
                if own == split:
                    yield int(number), {"image": io.BytesIO(file.read(name)), "label": label}


class SheetsByHand(Sheets):
    """Downloads nothing, and reads sound where there should be pictures."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
      Write to the archive for sheets.zip,
      and unpack it.
    """
    url_infos = None

    def _info(self):
        features = tfds.features.FeaturesDict({"number": tfds.features.Scalar(dtype=np.int64)})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.manual_dir / "numbers.txt", "train")}

    def _generate_examples(self, path, split):
        for i, line in enumerate(path.read_text().split()):
            yield i, {"number": int(line)}


class SheetsInADialect(Sheets):
    """Needs a package that nobody has."""

    def _generate_examples(self, path, split):
        import a_package_that_nobody_has

        yield 0, a_package_that_nobody_has.read(path)
