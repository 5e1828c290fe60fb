"""Whatever is generated from a schema is allowed by it, in the eyes of another implementation (`jsonschema`)."""

import json
from typing import Any

import property_profile  # noqa: F401
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from fuzzfarm_worker.fuzzing import generation
from fuzzfarm_worker.fuzzing.json_schema import SchemaError, schema_strategy
from fuzzfarm_worker.fuzzing.json_schema.documents import Document
from fuzzfarm_worker.fuzzing.json_schema.validity import allows

EXAMPLES = 150
FORMATS = ("date", "time", "date-time", "email", "uri", "uuid", "ipv4", "ipv6")

TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            },
            "required": ["name", "children"],
        }
    },
    "$ref": "#/$defs/tree",
}
EXPRESSION = {
    "definitions": {
        "sum": {
            "type": "object",
            "properties": {"op": {"const": "+"}, "left": {"$ref": "#"}, "right": {"$ref": "#"}},
            "required": ["op", "left", "right"],
            "additionalProperties": False,
        }
    },
    "anyOf": [{"$ref": "#/definitions/sum"}, {"type": "integer"}],
}
TOOL = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "search_files",
    "type": "object",
    "properties": {
        "path": {"type": "string", "pattern": "^(/[a-z]+)+$", "description": "where"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10},
        "kind": {"enum": ["file", "folder"]},
        "since": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True, "maxItems": 5},
        "filter": {
            "oneOf": [
                {"type": "object", "properties": {"by": {"const": "size"}, "bytes": {"type": "integer"}},
                 "required": ["by", "bytes"]},
                {"type": "object", "properties": {"by": {"const": "name"}, "glob": {"type": "string"}},
                 "required": ["by", "glob"]},
            ]
        },
    },
    "required": ["path"],
    "additionalProperties": False,
}  # fmt: skip

SCHEMAS: dict[str, Any] = {
    "anything": True,
    "anything too": {},
    "type null": {"type": "null"},
    "type boolean": {"type": "boolean"},
    "type integer": {"type": "integer"},
    "type number": {"type": "number"},
    "type string": {"type": "string"},
    "type array": {"type": "array"},
    "type object": {"type": "object"},
    "types": {"type": ["string", "null", "integer"]},
    "integer and number": {"type": ["integer", "number"], "minimum": 0},
    "enum": {"enum": [1, "two", None, {"three": [3]}, True]},
    "enum with a type": {"type": "string", "enum": ["a", "b", 3]},
    "enum with limits": {"enum": [1, 5, 10, 15], "minimum": 4, "not": {"const": 10}},
    "const": {"const": {"a": [1, 2.5, None]}},
    "integer limits": {"type": "integer", "minimum": -3, "maximum": 12},
    "integer between fractions": {"type": "integer", "minimum": 0.5, "maximum": 3.5},
    "integer exclusive": {"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 5},
    "number exclusive": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "number limits": {"type": "number", "minimum": 0.1, "maximum": 0.3},
    "large limits": {"type": "number", "minimum": 9007199254740993, "maximum": 9007199254740999},
    "multiple of an integer": {"type": "integer", "multipleOf": 7, "minimum": 10},
    "multiple of a fraction": {"type": "number", "multipleOf": 0.01, "minimum": -5, "maximum": 5},
    "integer multiple of a fraction": {"type": "integer", "multipleOf": 1.5},
    "limits without a type": {"minimum": 10},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 6},
    "long": {"type": "string", "minLength": 100},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"},
    "pattern anywhere": {"type": "string", "pattern": "a+b"},
    "pattern with lengths": {"type": "string", "pattern": "^[a-z0-9_-]+$", "minLength": 20, "maxLength": 24},
    "pattern with a count": {"type": "string", "pattern": "^\\d{2,}$", "maxLength": 4},
    "pattern of words": {"type": "string", "pattern": "^\\w+\\s\\w+$"},
    **{f"format {name}": {"type": "string", "format": name} for name in FORMATS},
    "format that is not known": {"type": "string", "format": "int32"},
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "unique items": {"type": "array", "items": {"enum": [1, True, "1", 0, False]}, "uniqueItems": True, "minItems": 3},
    "no items": {"type": "array", "items": False},
    "prefix": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    "prefix and more": {"prefixItems": [{"const": "x"}], "items": {"type": "integer"}, "minItems": 3},
    "unique prefix": {"prefixItems": [{"enum": [1, 2]}, {"enum": [1, 2]}], "uniqueItems": True, "minItems": 2},
    "properties": {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]},
    "required without a schema": {"type": "object", "required": ["x", "y"]},
    "no other properties": {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
    "other properties": {"properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "integer"}},
    "property counts": {"type": "object", "minProperties": 2, "maxProperties": 3},
    "property counts of listed ones": {
        "properties": {name: {"type": "integer"} for name in "abcdef"},
        "additionalProperties": False, "minProperties": 2, "maxProperties": 3, "required": ["c"],
    },
    "pattern properties": {
        "type": "object", "patternProperties": {"^n_": {"type": "integer"}, "_s$": {"type": "integer", "minimum": 5}},
        "additionalProperties": False, "minProperties": 1,
    },
    "a pattern over a listed property": {
        "properties": {"n_a": {"maximum": 9}}, "patternProperties": {"^n_": {"type": "integer"}}, "required": ["n_a"],
    },
    "any of": {"anyOf": [{"type": "integer", "maximum": 0}, {"type": "string", "maxLength": 2}]},
    "any of with siblings": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": -10}]},
    "any of required": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "one of": {"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}]},
    "one of by a name": TOOL["properties"]["filter"],
    "all of": {"allOf": [{"minimum": 3}, {"maximum": 8}, {"type": "integer"}]},
    "all of objects": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 5}, "b": {"type": "string"}}, "required": ["b"],
             "additionalProperties": False},
        ]
    },
    "all of closed objects": {
        "allOf": [
            {"properties": {"a": {}, "b": {}}, "additionalProperties": False, "type": "object"},
            {"properties": {"b": {"type": "null"}, "c": {}}, "additionalProperties": False},
        ]
    },
    "all of arrays": {
        "type": "array",
        "allOf": [{"prefixItems": [{"type": "integer"}]}, {"items": {"minimum": 3}, "minItems": 1, "maxItems": 3}],
    },
    "all of choices": {
        "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"anyOf": [{"type": "null"}, {"minimum": 4}]}]
    },
    "not a type": {"not": {"type": "string"}},
    "not a value": {"type": "integer", "minimum": 0, "maximum": 3, "not": {"enum": [1, 2]}},
    "a reference": {"properties": {"a": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": {"type": "integer"}}},
    "a reference with siblings": {"$ref": "#/$defs/n", "minimum": 5, "$defs": {"n": {"type": "integer"}}},
    "a tree": TREE,
    "an expression": EXPRESSION,
    "two that hold each other": {
        "$defs": {
            "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
            "b": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/a"}}, {"$ref": "#/$defs/a"}]},
        },
        "$ref": "#/$defs/a",
    },
    "a recursive property in all of": {
        "$defs": {"base": {"type": "object", "properties": {"next": {"$ref": "#/$defs/base"}}}},
        "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}}],
    },
    "a tool": TOOL,
}  # fmt: skip

OLDER = {
    "items as a list": {"items": [{"type": "integer"}, {"type": "null"}], "additionalItems": {"type": "string"}},
    "a list without more": {"items": [{"type": "integer"}], "additionalItems": False, "minItems": 1},
}


def generated(schema: Any, count: int = EXAMPLES) -> list[Any]:
    """Return what is generated for the first addresses; at most half of them may be rejected."""
    generator = generation.Generator(generated, {"value": schema_strategy(schema)})
    values: list[Any] = []
    for index in range(count):
        try:
            generator.run(generator.at(0, index), lambda drawn: values.append(drawn.arguments["value"]))
        except generation.Invalid:
            continue
    assert len(values) >= count / 2, "too few"
    return values


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_generated_is_allowed(name: str) -> None:
    validator = Draft202012Validator(SCHEMAS[name], format_checker=Draft202012Validator.FORMAT_CHECKER)
    Draft202012Validator.check_schema(SCHEMAS[name])
    values = generated(SCHEMAS[name])
    for value in values:
        validator.validate(json.loads(json.dumps(value)))
    assert len({json.dumps(value) for value in values}) > 1 or "const" in name or name in {"type null", "no items"}


@pytest.mark.parametrize("name", OLDER)
def test_tuples_of_older_drafts_are_understood(name: str) -> None:
    for value in generated(OLDER[name]):
        Draft7Validator(OLDER[name]).validate(value)
    assert any(len(value) > 1 for value in generated({**OLDER[name], "additionalItems": True}))


JSON = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(("", "a", "b c", "Ä")))
COUNTS = st.integers(0, 3)
LIMITS = st.one_of(st.integers(-5, 5), st.sampled_from((0.5, -2.25, 3.75)))


def some_schemas() -> st.SearchStrategy[Any]:
    """Return schemas of all keywords that are supported; many of them allow nothing."""
    return st.recursive(st.booleans() | st.builds(dict, type=TYPE_NAMES), _containing, max_leaves=8)


TYPE_NAMES = st.sampled_from(("null", "boolean", "integer", "number", "string", "array", "object"))


def _containing(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several, names = st.lists(inner, min_size=1, max_size=2), st.sampled_from(("a", "b", "c"))
    optional = {
        "type": TYPE_NAMES | st.lists(TYPE_NAMES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(JSON, min_size=1, max_size=4),
        "minimum": LIMITS, "maximum": LIMITS, "exclusiveMinimum": LIMITS, "exclusiveMaximum": LIMITS,
        "multipleOf": st.sampled_from((1, 2, 0.5, 1.5)),
        "minLength": COUNTS, "maxLength": COUNTS, "pattern": st.sampled_from(("^a", "b$", "^[ab]*$")),
        "minItems": COUNTS, "maxItems": COUNTS, "uniqueItems": st.booleans(), "items": inner, "prefixItems": several,
        "properties": st.dictionaries(names, inner, max_size=2), "required": st.lists(names, unique=True, max_size=2),
        "additionalProperties": inner, "patternProperties": st.dictionaries(st.sampled_from(("^a", "b")), inner),
        "minProperties": COUNTS, "maxProperties": COUNTS,
        "allOf": several, "anyOf": several, "oneOf": several, "not": inner,
    }  # fmt: skip
    keywords = st.lists(st.sampled_from(sorted(optional)), min_size=1, max_size=4, unique=True)
    return keywords.flatmap(lambda chosen: st.fixed_dictionaries({name: optional[name] for name in chosen}))


@given(some_schemas(), st.data())
@settings(max_examples=60)
def test_what_is_generated_from_any_schema_is_allowed(schema: Any, data: st.DataObject) -> None:
    try:
        strategy = schema_strategy(schema)
    except SchemaError:
        return
    value = data.draw(strategy)
    Draft202012Validator(schema).validate(value)


@given(some_schemas(), st.recursive(JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(("a", "b", "ab", "x")), inner, max_size=3)))  # fmt: skip
@settings(max_examples=150)
def test_what_is_allowed_is_what_another_implementation_allows(schema: Any, value: Any) -> None:
    assert allows(Document(schema), schema, value) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (False, "allows no value"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "allows no value"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "allows no value"),
        ({"required": ["a"], "properties": {"a": False}}, "allows no value"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "allows no value"),
        ({"enum": []}, "allows no value"),
        ({"not": {}}, "allows no value"),
        ({"$ref": "https://example.org/schema.json"}, "'https://example.org/schema.json' leads out of this schema"),
        ({"$ref": "other.json#/x"}, "leads out of this schema"),
        ({"$ref": "#/$defs/missing"}, "leads nowhere: there is no '\\$defs'"),
        ({"$ref": "#/$defs/a", "$defs": {"a": 3}}, "#/\\$defs/a is int, not a schema"),
        ({"$ref": "#"}, "# refers to itself"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "#/anyOf/1 refers to itself"),
        ({"properties": {"a": {"if": {}}}}, "#/properties/a has 'if', which is not supported"),
        ({"propertyNames": {"maxLength": 3}}, "# has 'propertyNames', which is not supported"),
        ({"$defs": {"a": {"contains": {}}}}, "#/\\$defs/a has 'contains'"),
        ({"type": "strin"}, "# has 'strin' as 'type', which it cannot be"),
        ({"minLength": -1}, "as 'minLength', which it cannot be"),
        ({"minimum": 3, "exclusiveMinimum": True}, "as 'exclusiveMinimum', which it cannot be"),
        ({"multipleOf": 0}, "as 'multipleOf', which it cannot be"),
        ({"items": 3}, "#/items is int, not a schema"),
        ({"pattern": "("}, "'\\(' as a pattern, which Python does not read"),
    ],
    ids=lambda part: json.dumps(part)[:40],
)
def test_a_schema_that_cannot_be_used_says_where_and_why(schema: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        schema_strategy(schema)


def test_a_schema_that_is_too_deep_is_refused() -> None:
    schema: Any = {}
    for _ in range(5_000):
        schema = {"not": schema}
    with pytest.raises(SchemaError, match="too deeply"):
        schema_strategy(schema)


def test_annotations_and_unknown_words_do_not_matter() -> None:
    words = {"title": "t", "description": "d", "default": 3, "examples": [], "$comment": "c", "x-order": 1, "foo": {}}
    assert all(type(value) is int for value in generated({"type": "integer", **words}))


def test_nullable_adds_null_to_the_types() -> None:
    values = generated({"type": "object", "properties": {"a": {"type": "string", "nullable": True}}, "required": ["a"]})
    assert {type(value["a"]) for value in values} == {str, type(None)}


def test_an_object_has_each_optional_property_in_some_examples_and_no_others() -> None:
    schema = {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    assert {tuple(sorted(value)) for value in generated(schema)} == {(), ("a",), ("a", "b"), ("b",)}


def test_a_schema_inside_itself_gives_deep_and_flat_values() -> None:
    def depth(tree: Any) -> int:
        return 1 + max(map(depth, tree["children"]), default=0)

    assert {1, 2, 3, 4} <= set(map(depth, generated(TREE))) <= set(range(1, 8))


def test_values_are_shown_as_plain_python() -> None:
    schema = {"prefixItems": [{"format": name} for name in FORMATS] + [{"multipleOf": 3}], "minItems": 9}
    generator = generation.Generator(generated, {"value": schema_strategy(schema)})
    for index in range(20):
        source = generator.source(generator.at(0, index), "f", lambda drawn: ([drawn["value"]], {}))
        assert source.startswith(("f([", "f(\n    ["))
        assert "lambda" not in source
        assert "format(" not in source
