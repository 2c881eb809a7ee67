"""What a stage leaves on disk: files that prove themselves, and the models that manifests describe."""

from kdjax.artifacts.artifact import MANIFEST, Artifact, Expected, finish, replace, restate

__all__ = ["MANIFEST", "Artifact", "Expected", "finish", "replace", "restate"]
