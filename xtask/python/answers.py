"""Synthetic answers of every operation that has sensitive members, in every protocol that it speaks, and what the real
botocore reads of them when they have been masked.

    answers.py make > answers.ndjson         one answer a line: service, operation, format, base64 body, its secrets
    answers.py check masked.ndjson

`check` parses each answer twice by botocore, as it was and masked, and wants them equal but for what was a secret.
Run by `cargo xtask sensitive --prove`.
"""

import base64
import datetime
import glob
import json
import os
import re
import struct
import sys
from xml.sax.saxutils import escape

import botocore.model
import botocore.parsers

import sensitive
from catalog import DATA, model

PROTOCOLS = {"json": "json", "rest-json": "json", "query": "xml", "ec2": "xml", "rest-xml": "xml",
             "smithy-rpc-v2-cbor": "cbor"}


class Raw(bytes):
    pass


class Maker:
    """Values by the output's shape: secrets carry a mark, everything else another."""

    def __init__(self, service, operation, name, shapes, wanted):
        self.service, self.operation, self.name, self.shapes = service, operation, name, shapes
        self.wanted, self.number, self.secrets = wanted, 0, []

    def make(self, shape_name, marked, path, top, depth=()):
        shape = self.shapes[shape_name]
        marked = marked or shape.get("sensitive", False)
        kind = shape["type"]
        if kind in ("structure", "list", "map") and not shape.get("document"):
            if depth.count(shape_name) > 1 or len(depth) > 12:
                return None
            depth = (*depth, shape_name)
        if kind == "structure" and not shape.get("document"):
            made = {}
            members = list(shape["members"].items())
            if shape.get("union"):
                members = members[:1]
            for member, reference in members:
                if reference.get("location"):
                    continue
                value = self.make(reference["shape"], marked or reference.get("sensitive", False), [*path, member],
                                  not path, depth)
                if value is not None:
                    made[member] = value
            return made
        if kind == "list":
            value = self.make(shape["member"]["shape"], marked, path, top, depth)
            return [] if value is None else [value]
        if kind == "map" and not shape.get("document"):
            marked = marked or self.shapes[shape["key"]["shape"]].get("sensitive", False)
            value = self.make(shape["value"]["shape"], marked, path, top, depth)
            return {} if value is None else {"k": value}
        secret = bool(path) and self.service.decide(self.operation, path, shape, marked, top)[0] is not None
        self.number += 1
        if kind in ("string", "character") and shape.get("document") is None:
            value = f"{'SECRET' if secret else 'plain'}-{self.number}-é"
            if secret:
                self.secrets.append(value)
            return value
        if kind == "blob":
            value = Raw(f"{'SECRET' if secret else 'plain'}-{self.number}-bytes".encode())
            if secret:
                self.secrets.append(value.decode())
            return value
        if kind == "boolean":
            return True
        if kind == "timestamp":
            return datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
        if kind in ("float", "double", "bigDecimal"):
            return 1.5 + self.number
        if shape.get("document"):
            return None
        return 1000 + self.number


class Json:
    def __init__(self, shapes):
        self.shapes = shapes

    def of(self, name, value):
        shape = self.shapes[name]
        kind = shape["type"]
        if kind == "structure":
            return {reference.get("locationName", member): self.of(reference["shape"], value[member])
                    for member, reference in shape["members"].items() if member in value}
        if kind == "list":
            return [self.of(shape["member"]["shape"], one) for one in value]
        if kind == "map":
            return {key: self.of(shape["value"]["shape"], one) for key, one in value.items()}
        if isinstance(value, Raw):
            return base64.b64encode(value).decode()
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        return value


class Cbor(Json):
    def encode(self, name, value):
        shape = self.shapes[name]
        kind = shape["type"]
        if kind == "structure":
            # As the parser reads it: by the member's own name.
            parts = [self.head(3, len(m.encode())) + m.encode() + self.encode(r["shape"], value[m])
                     for m, r in shape["members"].items() if m in value]
            return self.head(5, len(parts)) + b"".join(parts)
        if kind == "list":
            return self.head(4, len(value)) + b"".join(self.encode(shape["member"]["shape"], one) for one in value)
        if kind == "map":
            parts = [self.head(3, len(k.encode())) + k.encode() + self.encode(shape["value"]["shape"], one)
                     for k, one in value.items()]
            return self.head(5, len(parts)) + b"".join(parts)
        if isinstance(value, Raw):
            return self.head(2, len(value)) + value
        if isinstance(value, datetime.datetime):
            return b"\xc1\xfb" + struct.pack(">d", value.timestamp())
        if value is True:
            return b"\xf5"
        if isinstance(value, float):
            return b"\xfb" + struct.pack(">d", value)
        if isinstance(value, int):
            return self.head(0, value)
        text = value.encode()
        return self.head(3, len(text)) + text

    @staticmethod
    def head(major, number):
        major <<= 5
        if number < 24:
            return bytes([major | number])
        if number < 256:
            return bytes([major | 24, number])
        return bytes([major | 25]) + struct.pack(">H", number)


class Xml:
    def __init__(self, shapes):
        self.shapes = shapes

    def members(self, shape, value):
        return "".join(self.of(reference["shape"], value[member], reference.get("locationName", member), reference)
                       for member, reference in shape["members"].items() if member in value)

    def of(self, name, value, tag, reference):
        shape = self.shapes[name]
        kind = shape["type"]
        flat = reference.get("flattened") or shape.get("flattened")
        tag = tag.rpartition(":")[2]
        if kind == "structure":
            return f"<{tag}>{self.members(shape, value)}</{tag}>"
        if kind == "list":
            inner = shape["member"].get("locationName", tag if flat else "member")
            items = "".join(self.of(shape["member"]["shape"], one, inner, {}) for one in value)
            return items if flat else f"<{tag}>{items}</{tag}>"
        if kind == "map":
            k, v = shape["key"].get("locationName", "key"), shape["value"].get("locationName", "value")
            entry = tag if flat else "entry"
            items = "".join(f"<{entry}><{k}>{key}</{k}>{self.of(shape['value']['shape'], one, v, {})}</{entry}>"
                            for key, one in value.items())
            return items if flat else f"<{tag}>{items}</{tag}>"
        if isinstance(value, Raw):
            text = base64.b64encode(value).decode()
        elif isinstance(value, datetime.datetime):
            text = value.strftime("%Y-%m-%dT%H:%M:%SZ")
        elif value is True:
            text = "true"
        else:
            text = escape(str(value))
        return f"<{tag}>{text}</{tag}>"


def answers():
    overrides = sensitive.Overrides()
    for service_name in sorted(s for s in os.listdir(DATA) if glob.glob(os.path.join(DATA, s, "*", "service-2.json*"))):
        description = model(service_name, "service-2.json")
        service = sensitive.Service(service_name, description, overrides, lambda *_: None)
        shapes = description["shapes"]
        for name, operation in sorted(description["operations"].items()):
            output = operation.get("output", {}).get("shape")
            if not output:
                continue
            shape = shapes[output]
            if any(shapes[reference["shape"]].get("eventstream") for reference in shape["members"].values()):
                continue
            payload = shape.get("payload")
            body, path = output, []
            if payload:
                reference = shape["members"][payload]
                target = shapes[reference["shape"]]
                if target["type"] != "structure":
                    continue
                body, path = reference["shape"], [payload]
            given = operation.get("input", {}).get("shape")
            inputs = {sensitive.plain(member) for member in shapes[given]["members"]} if given else set()
            asked = {"name": name, "inputs": inputs, "lines": overrides.of(service_name, name), "key": name}
            maker = Maker(service, asked, name, shapes, None)
            value = maker.make(body, False, path, True)
            if not maker.secrets:
                continue
            for protocol in service.protocols:
                kind = PROTOCOLS.get(protocol)
                if protocol == "json" or protocol == "rest-json":
                    wire = json.dumps(Json(shapes).of(body, value)).encode()
                elif kind == "cbor":
                    wire = Cbor(shapes).encode(body, value)
                elif kind == "xml":
                    inner = Xml(shapes).members(shapes[body], value)
                    wrapper = operation.get("output", {}).get("resultWrapper")
                    if protocol == "query":
                        wrapper = wrapper or f"{name}Result"
                        inner = f"<{wrapper}>{inner}</{wrapper}><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
                    wire = f"<{name}Response>{inner}</{name}Response>".encode()
                else:
                    continue
                yield description, service_name, name, protocol, kind, wire, maker.secrets


def parsed(description, name, protocol, wire):
    service = botocore.model.ServiceModel(description)
    parser = botocore.parsers.create_parser(protocol)
    response = {"body": wire, "headers": {"smithy-protocol": "rpc-v2-cbor"}, "status_code": 200}
    read = parser.parse(response, service.operation_model(name).output_shape)
    read.pop("ResponseMetadata", None)
    return read


def compare(before, after, path, count):
    if isinstance(before, dict):
        assert isinstance(after, dict) and before.keys() == after.keys(), path
        for key in before:
            compare(before[key], after[key], f"{path}.{key}", count)
    elif isinstance(before, list):
        assert isinstance(after, list) and len(before) == len(after), path
        for one, other in zip(before, after):
            compare(one, other, path + "[]", count)
    elif before != after:
        assert type(before) is type(after) or isinstance(before, (int, float)) and isinstance(after, (int, float)), path
        text = before.decode() if isinstance(before, bytes) else before
        if isinstance(text, str) and not isinstance(before, datetime.datetime):
            assert text.startswith("SECRET"), f"{path}: {before!r} was masked"
            placeholder = after.decode() if isinstance(after, bytes) else after
            assert "chaperone-masked" in placeholder, f"{path}: {after!r}"
        count[0] += 1
    else:
        text = before.decode(errors="replace") if isinstance(before, bytes) else before
        assert not (isinstance(text, str) and text.startswith("SECRET")), f"{path}: {before!r} was not masked"


def main():
    sys.setrecursionlimit(10000)
    if sys.argv[1] == "make":
        for _, service, name, protocol, kind, wire, secrets in answers():
            print(json.dumps({"service": service, "operation": name, "protocol": protocol, "format": kind,
                              "body": base64.b64encode(wire).decode(), "secrets": secrets}))
        return
    count, number, operations = [0], 0, set()
    with open(sys.argv[2]) as masked:
        for (description, service, name, protocol, _, wire, _), line in zip(answers(), masked, strict=True):
            after = json.loads(line)
            assert (after["service"], after["operation"], after["protocol"]) == (service, name, protocol), line
            try:
                compare(parsed(description, name, protocol, wire),
                        parsed(description, name, protocol, base64.b64decode(after["body"])), "", count)
            except Exception as error:
                sys.exit(f"{service}:{name} in {protocol}: {error}")
            number += 1
            operations.add((service, name))
    print(f"answers: botocore reads {number} masked answers of {len(operations)} operations, {count[0]} values masked, all else equal")


if __name__ == "__main__":
    main()
