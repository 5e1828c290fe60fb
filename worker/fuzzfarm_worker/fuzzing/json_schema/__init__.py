"""JSON Schema: a strategy of the values that a schema allows, for what schemas of tools use.

A schema is checked as a whole before anything is generated: what restricts values in a way that is not known here is an
error that names it, and so is a `$ref` that leads out of the schema. Annotations do not matter.
"""

from __future__ import annotations

from fuzzfarm_worker.fuzzing.json_schema.compiler import schema_strategy
from fuzzfarm_worker.fuzzing.json_schema.documents import SchemaError

__all__ = ["SchemaError", "schema_strategy"]
