"""Which resources an operation touches: the ARN templates that IAM's data give for its actions, with their variables
filled by the operation's input.

A template is a string: what it is (see MARKS), then an ARN in which `{P}`, `{R}` and `{A}` stand for partition, region
and account, `{A=Member}` for an account that a member can name, `{=Member}` for a member (`{=One|Other}` for whichever
of several the request has), and `{*}` for what no member says. One member fills one variable of a template: what it
would say of another is a guess.
"""

import re

import catalog_exceptions as exceptions

# What a template is, by its first character.
MARKS = {
    "-": "optional: counts if its members are there",
    "!": "required by IAM: what isn't said of it is unknown",
    "|": "required, or one of several: whatever ARN a member such as `resourceArn` holds is the one",
    "+": "made by the operation, with a name that AWS assigns as far as no member says it",
    "?": "optional, like all of the operation's: if none is named, it could be any of these",
    "~": "named by the input, though IAM has no permission for it: it counts for policies that forbid",
}

# Members that hold whichever of several types an operation is for.
ANY_TYPE = {"resource", "resourcearn", "resourcearns", "resourcearnlist", "resourceid", "resourceidentifier", "resourcename",
            "arn", "arns", "resources", "resourceids", "targetarn", "taggableresourcearn", "entityarn", "identifier"}

ENDINGS = ("identifiers", "identifier", "arns", "arn", "ids", "id", "names", "name", "list", "")

# What operations do, when they make something.
CREATING = re.compile(r"^(Batch)?(Create|Run|Allocate|Request|Register|Import|Copy|Generate|Submit|Restore|Build|Launch"
                      r"|Provision|Purchase|Clone|Issue|Initiate)[A-Z]")

# More types than this without any member are said as all that the service has.
MANY = 6

# What stands before a type's own member where an operation is for two of the type.
BEFORE = ("source", "target", "destination", "from", "to", "new", "old", "current", "replacement", "peer", "parent", "primary",
          "secondary", "original", "base", "origin", "staging", "existing", "requester", "accepter", "first", "second",
          "initial", "final", "default")

# Members that choose resources by what they are like, besides those with a name and values of their own.
SELECTORS = re.compile(r"^(.*filters?|.*filtercriteria|targets|targetmaps|selectors?|.*tagfilters?.*|resourcetags|tagset"
                       r"|.*selectioncriteria|searchcriteria|filterexpression)$")

# Structures in structures that are looked at for what they name.
DEEPEST = 3

# An account whose resources are meant, where it isn't the caller's.
OWNERS = {"registryid": None, "catalogid": None, "domainowner": None, "awsaccountid": {"quicksight"},
          "accountid": {"s3control"}}


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def singular(name):
    if name.endswith("ies"):
        return name[:-3] + "y"
    if name.endswith(("sses", "xes", "ches", "shes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else name


def stem(name):
    for ending in ENDINGS:
        if ending and name.endswith(ending) and name != ending:
            return name[: -len(ending)]
    return "" if name in ENDINGS else singular(name)


def noun(operation):
    """`DescribeDBClusters` → `dbcluster`"""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[0-9]+", operation)
    while words and words[0] in ("Batch", "Bulk", "Admin", "Get", "Describe", "List") and len(words) > 2:
        words.pop(0)
        if words[0] not in ("Get", "Delete", "Describe", "Put", "Update", "Create", "Disable", "Enable"):
            break
    else:
        words = words[1:]
    return singular(plain("".join(words)))


# What may follow the noun of a type in an operation that is for that type.
TAILS = ("", "s", "policy", "configuration", "config", "setting", "status", "attribute", "attributes", "tag", "metadata", "detail",
         "details", "summary", "version", "state", "permission", "event", "history", "run", "result", "async", "v2", "description",
         "content", "data", "report", "statistics", "health", "schema", "endpoint", "association", "resource", "lock", "stream",
         "encryption", "logging", "monitoring", "scheduling", "protection", "synchronization", "preview", "now")


# Words that members and types' variables use for one another.
SYNONYMS = {"app": ("application",), "application": ("app",), "function": ("functionname",), "bucket": ("bucketname",),
            "repo": ("repository",), "db": ("database",), "certificate": ("certificateauthority",)}


class Filler:
    """Fills templates from the members of one operation's input."""

    def __init__(self, service, operation, members, nested, kinds):
        self.service, self.operation = service, operation
        self.members = {key: name for key, name, _ in members}
        # `{plain name: path}` of members of structures, where only one has that name.
        self.nested = {}
        # All of them: `{plain name: [path]}`.
        self.everywhere = {}
        for key, path in nested:
            self.nested[key] = None if key in self.nested else path
            self.everywhere.setdefault(key, []).append(path)
        self.noun = noun(operation)
        # All types that the service has, for the longest that the noun begins with.
        self.kinds = kinds

    def nouns(self, prefix, kind):
        own = [plain(kind), singular(plain(kind)), *exceptions.KINDS.get((prefix, kind), ())]
        return list(dict.fromkeys(own + [other for name in own for other in SYNONYMS.get(name, ())]))

    def is_for(self, prefix, kind, exactly=False):
        """Whether the operation's own noun is this type, or (unless `exactly`) something of it."""
        own = self.noun
        for name in self.nouns(prefix, kind):
            if own == name or own.startswith(name) and own[len(name):] in TAILS:
                return True
            # `ListTagsForStream`, `StopAdvancedPromptOptimizationJob`
            if re.search(r"(for|from|to|in|of|by|with)" + re.escape(name) + r"s?$", own):
                return True
            if not exactly and own.startswith(name) and len(name) >= 4:
                longer = [k for k in self.kinds if own.startswith(plain(k)) and len(plain(k)) > len(name)]
                if not longer:
                    return True
        return False

    def member(self, prefix, kind, variable, last, used, only):
        """The member that says a variable of a type's template."""
        for reviewed in exceptions.MEMBERS.get((self.service, kind), ()) if last else ():
            if plain(reviewed) in self.members and reviewed not in used:
                return self.members[plain(reviewed)]
        key = re.sub(r"(withpath|withoutleadingslash|resourcepath)", "", plain(variable)) or plain(variable)
        base = stem(key)
        names = self.nouns(prefix, kind)
        candidates = [key, key + "s", singular(key)]
        for one in (base, *SYNONYMS.get(base, ())):
            if one:
                candidates += [one + ending for ending in ENDINGS] + [one + "s"]
        if last:
            for name in names:
                candidates += [name + ending for ending in ENDINGS] + [name + "s"]
        for candidate in candidates:
            if candidate in self.members and self.members[candidate] not in used:
                return self.members[candidate]
        for candidate in candidates:
            path = self.nested.get(candidate)
            if path and path not in used and len(stem(candidate)) >= 4:
                return path
        if not last:
            return None
        free = {k: n for k, n in self.members.items() if n not in used}
        own = [n for n in free if stem(n) and len(stem(n)) >= 3 and stem(n) != n
               and any(name.endswith(stem(n)) or stem(n).endswith(name) and len(name) >= 4
                       or name.startswith(stem(n)) and self.is_for(prefix, kind) for name in names)]
        generic = ["identifier", "id", "arn", "identifiers", "ids", "arns", "resourceid", "resourceidentifier"]
        if self.is_for(prefix, kind, exactly=True):
            generic += ["name", "names", "resourcename"]
        if self.is_for(prefix, kind):
            for candidate in generic:
                if candidate in free:
                    return free[candidate]
        if only and last:
            for candidate in ("resourceid", "resourceidentifier", "resourceids", "resourcearn", "resourcename", "identifier"):
                if candidate in free:
                    return free[candidate]
        if len(own) == 1:
            return free[own[0]]
        prefixed = self.prefixed(candidates, used)
        return prefixed[0] if prefixed else None

    def prefixed(self, candidates, used):
        """Members such as `SourceDBInstanceIdentifier`, by `DBInstanceIdentifier`."""
        names = {before + candidate for candidate in candidates for before in BEFORE if len(candidate) >= 4}
        return [name for key, name in self.members.items() if key in names and name not in used]

    def others(self, filled, used):
        """The same template by other members that say the same: `SecondaryAllocationIds` and
        `AvailabilityZoneAddresses.AllocationIds` besides `AllocationId`, and `SourceConfiguration.TemplateName`
        with its `ApplicationName`."""
        top = [plain(name) for name in used]
        if not used or any(key not in self.members for key in top):
            return
        if len(used) == 1:
            forms = list(dict.fromkeys((top[0], singular(top[0]), singular(top[0]) + "s")))
            alike = [name for form in forms for name in self.prefixed([form], used)]
            if len(stem(top[0])) >= 4:
                alike += [path for form in forms for path in self.everywhere.get(form, ())]
            for other in dict.fromkeys(alike):
                yield filled.replace("{=%s}" % used[0], "{=%s}" % other)
            return
        outer = [{path.rpartition(".")[0] for path in self.everywhere.get(key, ())} for key in top]
        for structure in sorted(set.intersection(*outer)):
            text = filled
            for key, name in zip(top, used):
                path = next(p for p in self.everywhere[key] if p.rpartition(".")[0] == structure)
                text = text.replace("{=%s}" % name, "{=%s}" % path)
            yield text

    def fill(self, prefix, kind, template, only):
        """The template as far as members fill it, and which of them do."""
        template = re.sub(r"^(arn:[^:]*:[^:]*:[^:]*:)\$\{AccountId\}", r"\1${Account}", template)
        # A name that AWS assigns and the data leave out: a member can only say it as a whole ARN.
        unnamed = re.search(r"[:/]\*$", template) is not None
        if unnamed:
            template = template[:-1] + "${%sIdentifier}" % kind
        variables = re.findall(r"\$\{([^}]*)\}", template)
        named = [v for v in variables if v not in ("Partition", "Region", "Account")]
        used = []
        for variable in variables:
            if variable in ("Partition", "Region"):
                filled = "{%s}" % variable[0]
            elif variable == "Account":
                owner = next((self.members[o] for o, services in OWNERS.items()
                              if o in self.members and (services is None or self.service in services)), None)
                filled = "{A=%s}" % owner if owner else "{A}"
            else:
                found = self.member(prefix, kind, variable, variable == named[-1], used, only)
                if found:
                    used.append(found)
                filled = ("{~%s}" if unnamed else "{=%s}") % found if found else "{*}"
            template = template.replace("${%s}" % variable, filled, 1)
        template = template.replace("*", "{*}").replace("{{*}}", "{*}")
        return self.name_first(template, named, used), used

    @staticmethod
    def name_first(template, named, used):
        """A name that was taken for the id or version behind it, in its own place: `fleet/{=name}:{*}`."""
        places = re.findall(r"\{[=~*][^}]*\}", template)
        names = [at for at, variable in enumerate(named[:-1]) if variable.lower().endswith("name")]
        if (not names or len(places) != len(named) or not places[-1].startswith("{=") or places[names[0]] != "{*}"
                or not re.search(r"(id|uuid|version|revision|number|suffix)$", named[-1].lower())
                or re.search(r"(id|ids|arn|arns|identifier|version)$", plain(places[-1]))):
            return template
        places[names[0]], places[-1] = places[-1], "{*}"
        parts = re.split(r"\{[=~*][^}]*\}", template)
        return "".join(part + place for part, place in zip(parts, [*places, ""]))

    def by(self, prefix, kind, template, path):
        """A type's template with a path of members for its last variable, or `None` where it has none."""
        template = re.sub(r"^(arn:[^:]*:[^:]*:[^:]*:)\$\{AccountId\}", r"\1${Account}", template)
        variables = re.findall(r"\$\{([^}]*)\}", template)
        named = [v for v in variables if v not in ("Partition", "Region", "Account")]
        if not named or "*" in template:
            return None
        used = [path]
        for variable in variables:
            if variable in ("Partition", "Region", "Account"):
                filled = "{%s}" % variable[0]
            elif variable == named[-1]:
                filled = "{=%s}" % path
            else:
                found = self.member(prefix, kind, variable, False, used, False)
                used += [found] if found else []
                filled = "{=%s}" % found if found else "{*}"
            template = template.replace("${%s}" % variable, filled, 1)
        return template


def is_selector(shapes, member, shape):
    if SELECTORS.match(plain(member)):
        return shape["type"] in ("list", "structure", "map")
    return False


def templates(service, operation, actions, members, nested, iam):
    """Marked templates for all of the operation's actions, each once."""
    by_hand = exceptions.TEMPLATES.get((service, operation))
    if by_hand is not None:
        return list(by_hand)
    found, required_any = {}, False
    for action in actions:
        prefix = action.partition(":")[0]
        filler = Filler(service, operation, members, nested, iam.kinds(prefix))
        any_type = any(key in ANY_TYPE for key in filler.members)
        known = iam.action(action) or {}
        creating = CREATING.match(operation) and (known.get("accessLevel") or "Write") not in ("Read", "List")
        kinds = known.get("resourceTypes", [])
        required = [kind for kind in kinds if kind.get("required")]
        for kind in kinds:
            text = (iam.types.get(prefix, {}).get(kind["name"].lower()) or {}).get("arn") or ""
            # Several forms of one type's ARN: the one of which the input says the most.
            forms = [form.strip() for form in text.split(",") if form.strip().startswith("arn:")]
            only = len(required or kinds) == 1
            forms = [filler.fill(prefix, kind["name"], form, only) for form in forms]
            forms.sort(key=lambda form: (form[0].count("{*}"), -len(form[1])))
            for filled, used in forms[:1]:
                required_any = required_any or bool(kind.get("required"))
                if not kind.get("required"):
                    mark = "-" if used and "{*}" not in filled else "?"
                elif creating and filler.is_for(prefix, kind["name"], exactly=True):
                    mark = "+"
                elif not used and any_type:
                    mark = "|"
                else:
                    mark = "!"
                rank = "+!|-?"
                if mark != "?":
                    for other in filler.others(filled, used):
                        found.setdefault(other, "-")
                if filled not in found or rank.index(mark) < rank.index(found[filled]):
                    found[filled] = mark
    for mark in "|?":
        same = [template for template in found if found[template] == mark and "{=" not in template and "{~" not in template]
        if len(same) > MANY:
            # Operations on tags are for nearly all that a service has.
            services = {template.split(":")[2] for template in same}
            found = {template: m for template, m in found.items() if template not in same}
            found.update({"arn:{P}:%s:{*}:{*}:{*}" % service: mark for service in sorted(services)})
    return [mark + template for template, mark in found.items()]


def patterns(text):
    """The patterns of a type's ARNs, of which IAM's data list several behind commas."""
    forms = [form.strip() for form in text.split(",") if form.strip().startswith("arn:")]
    return [re.sub(r"\*+", "*", re.sub(r"\$\{[^}]*\}", "*", form)) for form in forms]


def types(operation, actions, inputs, outputs, iam):
    """Patterns of the types that IAM requires of an operation's first action, and of those that the operation makes: its
    noun, and what its answer names by a type's own name and its input doesn't. By none of the rules for templates."""
    needed, made = [], []
    for action in actions[:1]:
        prefix = action.partition(":")[0]
        filler = Filler("", operation, [], [], iam.kinds(prefix))
        known = iam.action(action) or {}
        creating = CREATING.match(operation) and (known.get("accessLevel") or "Write") not in ("Read", "List")
        said = {stem(key) for key, _ in inputs}
        answered = {stem(key) for key, _ in outputs} - said
        for kind in known.get("resourceTypes", []):
            found = patterns((iam.types.get(prefix, {}).get(kind["name"].lower()) or {}).get("arn") or "")
            if not found:
                continue
            if kind.get("required"):
                needed.append(found)
            names = set(filler.nouns(prefix, kind["name"]))
            if creating and (filler.is_for(prefix, kind["name"], exactly=True) or names & answered):
                made.append(found)
    return needed, made


def mentioned(service, operation, actions, members, texts, found, iam):
    """Templates for members that name something of the service's which no template of the operation's has, such as the
    image that `CopyImage` copies: by a type's own name, alone or behind a word such as `source`."""
    if (service, operation) in exceptions.TEMPLATES:
        return []
    consumed = {path for template in found for path in re.findall(r"\{[=~]([^}]*)\}", template)}
    all_of_it = {template[1:] for template in found}
    mentions = []
    for prefix in dict.fromkeys(action.partition(":")[0] for action in actions):
        filler = Filler(service, operation, members, [], iam.kinds(prefix))
        # By each name the types that it could be.
        kinds = {}
        types = [(kind, [form.strip() for form in (kind.get("arn") or "").split(",") if form.strip().startswith("arn:")])
                 for kind in iam.types.get(prefix, {}).values()]
        own = any(form.split(":")[2] == prefix for _, forms in types for form in forms)
        for kind, forms in types:
            # Other services' types are among a service's own where it has permissions for them.
            forms = [form for form in forms if not own or form.split(":")[2] == prefix]
            for name in filler.nouns(prefix, kind["key"]) if forms else ():
                kinds.setdefault(name, []).append((kind["key"], forms[0]))
        for key, path in texts:
            if path in consumed or key.endswith(("arn", "arns")):
                continue
            base = stem(key) or key
            for before in ("", *BEFORE):
                if not base.startswith(before) or base == before:
                    continue
                for kind, form in kinds.get(base[len(before):], ()):
                    if len(base) - len(before) < 4 and before == "" and key == base:
                        continue
                    template = filler.by(prefix, kind, form, path)
                    if template and template not in all_of_it:
                        mentions.append("~" + template)
    return list(dict.fromkeys(mentions))
