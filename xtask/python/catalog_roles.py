"""Which operations hand a role to a service: those that change something and whose input holds a role's ARN or name
anywhere. AWS asks for iam:PassRole where a service is to act by the role; where the role is only what the operation is
about, a reviewed list says so."""

import re

import catalog_exceptions as exceptions

ROLE = re.compile(r"(role|rolearn|rolearns|iamrole|iamroles|iamrolearn|iamrolearns|rolename|instanceprofile|instanceprofilearn"
                  r"|instanceprofilename|executionroles?|servicelinkedrolearn|roleoverride)$")
# A role by a member's name that is something else: a database's, a user's in a product.
NO_ROLE = re.compile(r"(userrole|defaultrole|dbrole|databaserole|memberrole|grouprole|personrole|partyrole|replicationrole|nodetyperole"
                     r"|messagerole|contactrole|clusterrole)$")


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def passes(service, operation, description):
    """Whether a role stands anywhere in the operation's input."""
    if service in exceptions.NO_ROLES or (service, operation) in exceptions.NO_ROLES:
        return False
    shapes, seen = description["shapes"], set()
    given = description["operations"][operation].get("input", {}).get("shape")

    def walk(name, member):
        shape = shapes[name]
        kind = shape["type"]
        if kind == "structure":
            if name in seen:
                return False
            seen.add(name)
            return any(walk(reference["shape"], inner) for inner, reference in shape["members"].items())
        if kind == "list":
            return walk(shape["member"]["shape"], member)
        if kind == "map":
            return walk(shape["value"]["shape"], member)
        leaf, of = plain(member), plain(name)
        text = kind == "string" and not shape.get("enum")
        # A pattern in the model that only a role's ARN fits, or the member's name.
        by_pattern = ":role" in shape.get("pattern", "") or "role/" in shape.get("pattern", "")
        return text and (by_pattern or bool(ROLE.search(leaf) and not NO_ROLE.search(leaf))
                         or bool(re.search(r"(rolearn|iamrole)$", of)))

    return bool(given) and walk(given, "")
