"""Compiles from botocore's models which members of answers hold secrets, or are marked sensitive, for `chaperone-aws`.

    sensitive.py > sensitive.ndjson            the graphs, a service a line
    sensitive.py --list > decisions.tsv        every member that was looked at, and what was decided by which rule

Run by `cargo xtask sensitive` in a virtual environment that has botocore. The output is deterministic.

Two classes of members come of it. *Secrets* open something: they are masked unless told otherwise. What is *sensitive*
besides, by the models' own marks, is names, addresses, texts that were asked for: it is masked where a policy says so.
"""

import argparse
import fnmatch
import glob
import json
import os
import re
import sys

import botocore

import catalog_secrets
from catalog import DATA, model

OVERRIDES = os.path.join(os.path.dirname(__file__), "../../userspace/aws/data/sensitive-overrides.tsv")
# Types that can't hold a secret that anybody could use: a choice, a yes or no, a time, a number.
KINDS = {"string": 0, "character": 0, "blob": 1, "timestamp": 2, "boolean": 3, "integer": 4, "long": 4, "short": 4,
         "byte": 4, "bigInteger": 4, "float": 4, "double": 4, "bigDecimal": 4}
SECRET, SENSITIVE = 0, 1


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Overrides:
    """The reviewed list: service, operation, the end of a path, `mask` or `show`, what spares it, and the reason."""

    def __init__(self):
        self.lines = []
        with open(OVERRIDES) as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip("\n")
                if not line or line.startswith("#"):
                    continue
                fields = line.split("\t")
                if len(fields) != 6 or fields[3] not in ("mask", "show") or not fields[5]:
                    sys.exit(f"sensitive-overrides.tsv:{number}: six fields with tabs between them are wanted: service, "
                             "operations, path, mask or show, `Member=Text|Text` or `-`, reason")
                self.lines.append({"number": number, "service": fields[0], "operations": fields[1].split(" "),
                                   "path": fields[2].split("."), "mask": fields[3] == "mask",
                                   "spare": None if fields[4] == "-" else fields[4], "used": False})

    def of(self, service, operation):
        return [line for line in self.lines if fnmatch.fnmatchcase(service, line["service"])
                and any(fnmatch.fnmatchcase(operation, one) for one in line["operations"])]

    def check(self):
        unused = [str(line["number"]) for line in self.lines if not line["used"]]
        if unused:
            sys.exit("sensitive-overrides.tsv: no member of botocore's models is meant by line " + ", ".join(unused))


class Service:
    def __init__(self, name, description, overrides, log):
        self.name, self.description, self.shapes = name, description, description["shapes"]
        self.overrides, self.log = overrides, log
        self.nodes, self.index = [], {}
        # Operations whose answer's body is bytes or a text, whatever that is.
        self.raw = set()
        metadata = description["metadata"]
        self.protocols = list(metadata.get("protocols") or [metadata["protocol"]])
        if "awsQueryCompatible" in metadata and "query" not in self.protocols:
            self.protocols.append("query")

    def decide(self, operation, path, shape, marked, top):
        """The class of a leaf and what spares it, or None."""
        kind = shape["type"]
        leaf, parent = plain(path[-1]), plain(path[-2]) if len(path) > 1 else ""
        found = None
        for line in operation["lines"]:
            wanted = line["path"]
            if len(wanted) <= len(path) and all(fnmatch.fnmatchcase(*pair) for pair in zip(path[-len(wanted):], wanted)):
                line["used"] = True
                found = line
        rule = None
        if found is not None and found["mask"]:
            decision, rule = SECRET, f"line {found['number']}"
        elif found is not None:
            decision, rule = (SENSITIVE if marked else None), f"line {found['number']}"
        else:
            decision = SENSITIVE if marked else None
            text = kind in ("string", "blob", "character") and not shape.get("enum")
            elsewhere = catalog_secrets.ELSEWHERE.search(leaf) or leaf in operation["inputs"] and top
            if text and not elsewhere:
                environment = marked and parent.startswith("environment") and leaf in ("value", "variables")
                token = leaf == "token" and len(path) <= 2 and re.match(r"Get|Create|Issue", operation["name"])
                if catalog_secrets.SECRET.search(leaf) or marked and catalog_secrets.MARKED.search(leaf) \
                        or environment or token:
                    decision, rule = SECRET, "name"
        if decision is not None:
            self.log(self.name, operation["name"], ".".join(path), kind, "marked" if marked else "", decision, rule)
        return decision, (found or {}).get("spare") if decision == SECRET else None

    def node(self, operation, shape_name, marked, path, top, xml):
        """The position of a node, or a negative number for a leaf; None if there is nothing below."""
        shape = self.shapes[shape_name]
        marked = marked or shape.get("sensitive", False)
        kind = shape["type"]
        if kind not in ("structure", "list", "map") or shape.get("document"):
            if not path:
                return None
            decision, spare = self.decide(operation, path, shape, marked, top)
            if decision is None:
                return None
            if spare:
                operation["spare"] = spare
            return -(1 + KINDS.get(kind, 0) + 5 * decision + (10 if spare else 0))
        key = (operation["key"], shape_name, marked, tuple(path[-2:]), top, xml)
        if key in self.index:
            return self.index[key]
        position = self.index[key] = len(self.nodes)
        node = {}
        self.nodes.append(node)
        if kind == "structure":
            members, operation["spare"] = {}, None
            for member, reference in shape["members"].items():
                if reference.get("location"):
                    continue
                to = self.node(operation, reference["shape"], marked or reference.get("sensitive", False),
                               [*path, member], not path, xml)
                if to is None:
                    continue
                for wire in self.wire_names(member, reference, xml):
                    target = to
                    if xml and isinstance(to, int) and to >= 0 and self.flattened(reference):
                        # A list without a wrapper: its elements stand where it would.
                        target = self.nodes[to].get("a", None)
                    elif xml and self.flattened(reference):
                        target = to
                    if target is not None:
                        members[wire] = target
                spare = operation.pop("spare", None)
                if spare:
                    node["s"] = spare
            if members:
                node["m"] = members
        elif kind == "list":
            to = self.node(operation, shape["member"]["shape"], marked, path, top, xml)
            if to is not None:
                node["a"] = to
        else:
            marked = marked or self.shapes[shape["key"]["shape"]].get("sensitive", False)
            to = self.node(operation, shape["value"]["shape"], marked, path, top, xml)
            if to is not None and xml:
                entry = len(self.nodes)
                self.nodes.append({"m": {shape["value"].get("locationName", "value"): to}})
                node["a"] = entry
            elif to is not None:
                node["a"] = to
        return position

    def flattened(self, reference):
        return reference.get("flattened") or self.shapes[reference["shape"]].get("flattened")

    def wire_names(self, member, reference, xml):
        shape = self.shapes[reference["shape"]]
        name = reference.get("locationName", member)
        if not xml:
            return sorted({name, member})
        if shape["type"] == "list" and self.flattened(reference):
            name = shape["member"].get("locationName", name)
        return [name.rpartition(":")[2]]

    def roots(self, name, xml):
        description = self.description["operations"][name]
        output = description.get("output", {}).get("shape")
        if not output:
            return None, {}
        given = description.get("input", {}).get("shape")
        inputs = {plain(member) for member in self.shapes[given]["members"]} if given else set()
        lines = self.overrides.of(self.name, name)
        operation = {"name": name, "inputs": inputs, "lines": lines, "key": name}
        shape = self.shapes[output]
        headers = {}
        for member, reference in shape["members"].items():
            if reference.get("location") in ("header", "headers"):
                target = self.shapes[reference["shape"]]
                marked = reference.get("sensitive", False) or target.get("sensitive", False)
                decision, _ = self.decide(operation, [member], target, marked, True)
                if decision is not None and reference["location"] == "header":
                    headers[reference.get("locationName", member).lower()] = decision
        body = output
        path = []
        payload = shape.get("payload")
        stream = next((m for m, r in shape["members"].items() if self.shapes[r["shape"]].get("eventstream")), None)
        if stream:
            # (json's models don't say that it is the payload.)
            return self.events(operation, shape["members"][stream]["shape"], xml), headers
        if payload:
            reference = shape["members"][payload]
            target = self.shapes[reference["shape"]]
            if target["type"] not in ("structure", "list", "map"):
                marked = reference.get("sensitive", False) or target.get("sensitive", False)
                self.raw.add(name)
                decision, _ = self.decide(operation, [payload], target, marked, True)
                return (None if decision is None else -(1 + KINDS.get(target["type"], 0) + 5 * decision)), headers
            body, path = reference["shape"], [payload]
        root = self.node(operation, body, False, path, True, xml)
        if root is not None and root >= 0 and xml:
            # The outermost element, and query's `…Result` in it, are called by the operation's name.
            for _ in range(2 if "query" in self.protocols else 1):
                self.nodes.append({"a": root})
                root = len(self.nodes) - 1
        return root, headers

    def events(self, operation, stream, xml):
        members = {}
        for event, reference in self.shapes[stream]["members"].items():
            shape = self.shapes[reference["shape"]]
            payload = next((m for m, r in shape.get("members", {}).items() if r.get("eventpayload")), None)
            marked = reference.get("sensitive", False) or shape.get("sensitive", False)
            name, path = reference["shape"], [event]
            if payload:
                inner = shape["members"][payload]
                marked = marked or inner.get("sensitive", False)
                name, path = inner["shape"], [event, payload]
            to = self.node(operation, name, marked, path, False, xml)
            if to is not None:
                members[event] = to
        self.nodes.append({"m": members})
        return len(self.nodes) - 1

    def compiled(self):
        operations, headers = {}, {}
        for name in sorted(self.description["operations"]):
            entry = []
            for xml in (False, True):
                speaks = any(p in ("query", "ec2", "rest-xml") for p in self.protocols) if xml else \
                    any(p in ("json", "rest-json", "smithy-rpc-v2-cbor") for p in self.protocols)
                root, fields = self.roots(name, xml) if speaks else (None, {})
                entry.append(root)
                headers.setdefault(name, {}).update(fields)
            operations[name] = entry
        return self.minimal(operations, headers)

    def minimal(self, operations, headers):
        """Nodes that lead nowhere taken out, and equal ones made one."""
        useful = [False] * len(self.nodes)
        changed = True
        while changed:
            changed = False
            for position, node in enumerate(self.nodes):
                targets = [*node.get("m", {}).values(), *([node["a"]] if "a" in node else [])]
                if not useful[position] and any(to < 0 or useful[to] for to in targets):
                    useful[position] = changed = True
        keep = lambda to: to is not None and (to < 0 or useful[to])
        # Equal nodes, by rounds of refining: those that recurse as well.
        names = {position: "" for position in range(len(self.nodes)) if useful[position]}
        while True:
            told = {}
            for position in names:
                node = self.nodes[position]
                of = lambda to: str(to) if to < 0 else "n" + names[to]
                text = json.dumps([[(wire, of(to)) for wire, to in sorted(node.get("m", {}).items()) if keep(to)],
                                   of(node["a"]) if keep(node.get("a")) else None, node.get("s")])
                told[position] = text
            classes = {text: str(number) for number, text in enumerate(sorted(set(told.values())))}
            fresh = {position: classes[told[position]] for position in names}
            if len(set(fresh.values())) == len(set(names.values())):
                names = fresh
                break
            names = fresh
        order, nodes = {}, []

        def place(to):
            if to < 0:
                return to
            name = names[to]
            if name in order:
                return order[name]
            position = order[name] = len(nodes)
            nodes.append(None)
            node, compiled = self.nodes[to], {}
            members = {wire: place(it) for wire, it in sorted(node.get("m", {}).items()) if keep(it)}
            if members:
                compiled["m"] = members
            if keep(node.get("a")):
                compiled["a"] = place(node["a"])
            if node.get("s"):
                compiled["s"] = node["s"]
            nodes[position] = compiled
            return position

        compiled = {}
        for name, roots in operations.items():
            placed = [place(root) if keep(root) else None for root in roots]
            fields = headers.get(name) or {}
            if placed != [None, None] or fields:
                entry = {}
                if placed[0] is not None:
                    entry["j"] = placed[0]
                if placed[1] is not None:
                    entry["x"] = placed[1]
                if fields:
                    entry["h"] = fields
                compiled[name] = entry
        # Operations that secrets are below, and not only what is sensitive besides.
        secretive = lambda to: to < 0 and (-to - 1) // 5 % 2 == SECRET or to >= 0 and to in above
        above, changed = set(), True
        while changed:
            changed = False
            for position, node in enumerate(nodes):
                targets = [*node.get("m", {}).values(), *([node["a"]] if "a" in node else [])]
                if position not in above and any(secretive(to) for to in targets):
                    above.add(position)
                    changed = True
        for entry in compiled.values():
            if any(secretive(entry[key]) for key in "jx" if key in entry):
                entry["c"] = 1
        return {"n": self.name, "o": compiled, "g": nodes, "r": sorted(self.raw)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="list every decision instead")
    arguments = parser.parse_args()
    sys.setrecursionlimit(10000)
    overrides = Overrides()
    listed = set()
    names = sorted(s for s in os.listdir(DATA) if glob.glob(os.path.join(DATA, s, "*", "service-2.json*")))
    lines = []
    for name in names:
        def log(*decision):
            listed.add(tuple(str(part) for part in decision))
        compiled = Service(name, model(name, "service-2.json"), overrides, log).compiled()
        if compiled["o"] or compiled["r"]:
            lines.append(compiled)
    overrides.check()
    if arguments.list:
        for line in sorted(listed):
            print("\t".join(line))
        return
    head = {"botocore": botocore.__version__, "services": [line["n"] for line in lines]}
    for line in [head, *lines]:
        json.dump(line, sys.stdout, separators=(",", ":"), ensure_ascii=True)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
