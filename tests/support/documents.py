"""Whether documents about packages are what their specifications ask for.

`schemas/spdx-2.3.json` is the official schema of SPDX 2.3 (`schemas/spdx-schema.json` of its specification, tag v2.3;
Copyright SPDX workgroup, Creative Commons Attribution 3.0 Unported, unchanged).
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

SPDX = Path(__file__).parent / "schemas" / "spdx-2.3.json"


def check_spdx(data: str | bytes) -> None:
    """SPDX 2.3 in JSON: by the schema, and by the rules that a schema cannot say."""
    document = json.loads(data)
    validator = jsonschema.Draft7Validator(json.loads(SPDX.read_bytes()))
    assert [f"{one.json_path}: {one.message}" for one in validator.iter_errors(document)] == []
    told = JsonLikeDictParser().parse(document)
    assert [one.validation_message for one in validate_full_spdx_document(told, "SPDX-2.3")] == []


def check_cyclonedx(data: str | bytes) -> None:
    """CycloneDX 1.6 in JSON, strictly."""
    text = data if isinstance(data, str) else data.decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
