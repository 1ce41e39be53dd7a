"""The components of the published low-code schema, in the form of components.txt. Its file is the argument."""

import sys

import yaml

schema = yaml.safe_load(open(sys.argv[1]))
definitions = schema["definitions"]
NAMES = {"string": "text", "object": "map", "array": "list", "integer": "int", "boolean": "bool", "number": "number", "null": "null"}
inline = {}


def kind(part):
    """The component that a part is, by the one text that its `type` may be."""
    own = part.get("properties", {}).get("type", {}).get("enum", [])
    return own[0] if len(own) == 1 else None


def rule(part):
    if "$ref" in part:
        target = definitions[part["$ref"].rsplit("/", 1)[1]]
        return kind(target) or rule(target)
    for word in ("anyOf", "oneOf"):
        if word in part:
            return "|".join(dict.fromkeys(rule(one) for one in part[word]))
    if "enum" in part:
        return "(" + "/".join(map(str, part["enum"])) + ")"
    if kind(part):
        inline[kind(part)] = part
        return kind(part)
    own = part.get("type", "any")
    if isinstance(own, list):
        return "|".join(NAMES[one] for one in own)
    if own == "array":
        return "[" + (rule(part["items"]) if "items" in part else "any") + "]"
    values = part.get("additionalProperties")
    if own == "object" and isinstance(values, dict) and values:
        return "{" + rule(values) + "}"
    return NAMES.get(own, own)


def show(name, part):
    print(name)
    for field, value in part.get("properties", {}).items():
        if field not in ("type", "$parameters"):
            print(f"  {field}{'!' if field in part.get('required', []) else ''}: {rule(value)}")


show("DeclarativeSource", {"properties": schema["properties"], "required": schema["required"]})
for part in definitions.values():
    if kind(part):
        show(kind(part), part)
for name, part in list(inline.items()):
    show(name, part)
