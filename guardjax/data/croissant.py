"""Croissant 1.0 metadata (mlcommons.org/croissant): a data set's files, fields and licence as JSON.

For a build of the policy world, and for the folder of `guardjax pairs build`. What is not known is
left out: `missing` names what a published set must have and this one does not say.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardjax.world import builder

FILE = "croissant.json"
REQUIRED = ("url", "license", "creator")    # beside those that are always known
_KINDS = {".json": "application/json", ".jsonl": "application/jsonlines", ".md": "text/markdown",
          ".png": "image/png"}
# OpenMoji's share-alike licence is that of pictures made of its drawings.
_WORLD_LICENCE = "https://creativecommons.org/licenses/by-sa/4.0/"
_PAIR_FIELDS = {
    "safety_label": "safe or unsafe, under the policy of the row",
    "policy_name": "id of the policy", "policy": "its text", "pair_id": "the edited pair",
    "role": "before or after the edit", "instruction": "what the editor was told"}
# The names of the vocabulary, which the format wants in every file.
_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty",
        "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField",
        "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
        "separator", "source", "subField", "transform")}}


class CroissantError(ValueError):
    """A folder that is no data set of ours."""


def of_world(build: Path, *, url: str = "") -> dict[str, Any]:
    """Metadata of a build of the policy world: every file with its hash, every split's size.

    Raises:
      IncompleteBuild: the folder is not a complete build.
    """
    stamp = builder.check_complete(build)
    names = sorted({*stamp["files"], "CARD.md"} & {
        str(path.relative_to(build)) for path in build.rglob("*")})
    splits = {
        "@type": "cr:RecordSet", "@id": "splits", "name": "splits",
        "description": "Pictures of each split, two a pair.",
        "field": [_field("splits/name", "sc:Text"), _field("splits/pictures", "sc:Integer")],
        "data": [{"splits/name": split, "splits/pictures": 2 * pairs}
                 for split, pairs in stamp["recipe"]["sizes"].items()]}
    return _metadata(
        build.name, "Colour drawings over photographs in edited pairs, with exactly known "
        "attributes; a label follows from picture and policy. Files are TensorFlow Datasets' "
        "array_record (tfds.builder_from_directory). CARD.md has counts, credits and limits.",
        [_file(build, name) for name in names], [splits], date=_date(build / "complete.json"),
        url=url, licence=_WORLD_LICENCE, creator="The guardjax authors")


def of_pairs(folder: Path, *, url: str = "", licence: str = "",
             creator: str = "") -> dict[str, Any]:
    """Metadata of edited pairs: a record is a picture under a policy, with the picture.

    Raises:
      CroissantError: the folder is not one of `guardjax pairs build`.
    """
    try:
        tools = json.loads((folder / "tools.json").read_text(encoding="utf-8"))
        who = {name: tools[name] for name in ("assessor", "editor", "policy")}
        files = [_file(folder, name) for name in ("metadata.jsonl", "left_out.jsonl", "tools.json")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CroissantError(f"{folder} is not a folder of guardjax pairs build: {error!r}"
                             ) from error
    pictures = {"@type": "cr:FileSet", "@id": "pictures", "name": "pictures",
                "encodingFormat": "image/png", "includes": "images/*.png"}
    # The name in the table is that of the file, so that a record finds its picture.
    name = _field("rows/file_name", "sc:Text", "name of the picture's file") | {
        "source": {"fileObject": {"@id": "metadata.jsonl"}, "extract": {"column": "file_name"},
                   "transform": {"regex": "images/(.*)"}},
        "references": {"fileSet": {"@id": "pictures"}, "extract": {"fileProperty": "filename"}}}
    image = _field("rows/image", "sc:ImageObject", "the picture") | {
        "source": {"fileSet": {"@id": "pictures"}, "extract": {"fileProperty": "content"}}}
    columns = [_field(f"rows/{column}", "sc:Text", words) | {
        "source": {"fileObject": {"@id": "metadata.jsonl"}, "extract": {"column": column}}}
        for column, words in _PAIR_FIELDS.items()]
    rows = {"@type": "cr:RecordSet", "@id": "rows", "name": "rows",
            "description": "A picture under a policy.", "field": [name, image, *columns]}
    return _metadata(
        folder.name, "Edited pairs of pictures: one that policy "
        f"{who['policy']} forbids and its twin, edited until it is allowed. Labels are those of "
        f"the tools, not of people. Assessor: {who['assessor']}; editor: {who['editor']}.",
        [*files, pictures], [rows], date=_date(folder / "metadata.jsonl"), url=url,
        licence=licence, creator=creator)


def missing(metadata: dict[str, Any]) -> list[str]:
    """Names of what the format requires of a published set and this metadata does not have."""
    return [name for name in REQUIRED if name not in metadata]


def _metadata(name: str, description: str, distribution: Sequence[dict[str, Any]],
              records: Sequence[dict[str, Any]], *, date: str, url: str, licence: str,
              creator: str) -> dict[str, Any]:
    known = {"url": url, "license": licence,
             "creator": {"@type": "sc:Organization", "name": creator} if creator else ""}
    return {
        "@context": _CONTEXT, "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": re.sub(r"[^\w.-]+", "-", name), "description": description, "version": "1.0.0",
        "datePublished": date, **{key: value for key, value in known.items() if value},
        "distribution": list(distribution), "recordSet": list(records)}


def _field(field_id: str, kind: str, description: str = "") -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": field_id, "name": field_id.rpartition("/")[2],
             "dataType": kind}
    return field | {"description": description} if description else field


def _file(folder: Path, name: str) -> dict[str, Any]:
    digest, path = hashlib.sha256(), folder / name
    with open(path, "rb") as opened:
        while piece := opened.read(2**22):
            digest.update(piece)
    return {"@type": "cr:FileObject", "@id": Path(name).as_posix(), "name": Path(name).as_posix(),
            "contentUrl": Path(name).as_posix(), "contentSize": f"{path.stat().st_size} B",
            "encodingFormat": _KINDS.get(path.suffix, "application/octet-stream"),
            "sha256": digest.hexdigest()}


def _date(path: Path) -> str:
    """The day on which a file was written."""
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date().isoformat()
