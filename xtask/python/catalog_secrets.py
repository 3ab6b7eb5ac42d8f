"""Which operations hand out secrets, by the models: members of their answers that are called like credentials, those
that are marked sensitive and called like something that opens a door, and a reviewed list (`catalog_exceptions`)."""

import re

import catalog_exceptions as exceptions

# A member with such a name is a secret, marked or not.
SECRET = re.compile(
    r"(password|passphrase|passcode|passworddata|clientsecret|sharedsecret|appsecret|secretkey|secretaccesskey|privatekey"
    r"|privatekeypem|privatekeybase64|apikey|apikeys|apikeyvalue|secretstring|secretbinary|secret|accesstoken|authtoken|sessiontoken"
    r"|bearertoken|authorizationtoken|refreshtoken|idtoken|identitytoken|openidtoken|securitytoken|tokenvalue|jwt|importtoken|exporttoken"
    r"|presignedurl|signedurl|authorizedurl|presignednotebookurl|userdata|userdataoverride|connectionstring|presharedkey|psk|seed"
    r"|base32stringseed|qrcodepng|environmentvariables)$")
# A member that is marked sensitive and has such a name.
MARKED = re.compile(
    r"token$|secret|credential|password|passcode|url$|seed|variables$|plaintext|privatekey|keymaterial|apikey|accesskey"
    r"|authorization|otp$|cookie|gatewayconfiguration$|sampleconfiguration$|connectionproperties|customdata$")
# Names that say where a secret is, which sort it is, or how far a list was read.
ELSEWHERE = re.compile(
    r"arn$|(next|pagination|continuation|client|request|page|idempotency|forward|backward|update|lock|creation|client_?request"
    r"|next_?page|change|paging)token$|marker$|secretid$|secretname$|algorithm$|type$|status$|logourl$|imageurl$|iconurl$|websiteurl$"
    r"|accesskeyid$|thumbnailurl$|avatarurl$|redirecturl$|callbackurl$|publickey$")


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def secrets(service, operation, description):
    """Paths of the members of an operation's answer that hold secrets."""
    if (service, operation) in exceptions.SECRETS:
        return [exceptions.SECRETS[service, operation]]
    shapes = description["shapes"]
    wanted = description["operations"][operation]
    output, given = wanted.get("output", {}).get("shape"), wanted.get("input", {}).get("shape")
    # What is also an input is where a list was left off.
    inputs = {plain(name) for name in shapes[given]["members"]} if given else set()
    found, seen = [], set()

    def walk(name, path, marked):
        shape = shapes[name]
        marked = marked or shape.get("sensitive", False)
        kind = shape["type"]
        if kind == "structure":
            if name in seen or len(path) > 10:
                return
            seen.add(name)
            for member, reference in shape["members"].items():
                walk(reference["shape"], [*path, member], marked or reference.get("sensitive", False))
        elif kind == "list":
            walk(shape["member"]["shape"], path, marked)
        elif kind == "map":
            walk(shape["value"]["shape"], path, marked or shapes[shape["key"]["shape"]].get("sensitive", False))
        elif kind in ("string", "blob") and path and not shape.get("enum"):
            leaf, parent = plain(path[-1]), plain(path[-2]) if len(path) > 1 else ""
            if ELSEWHERE.search(leaf) or leaf in inputs and len(path) == 1:
                return
            of_environment = marked and parent.startswith("environment") and leaf in ("value", "variables")
            plain_token = leaf == "token" and len(path) <= 2 and re.match(r"Get|Create|Issue", operation)
            if SECRET.search(leaf) or marked and MARKED.search(leaf) or of_environment or plain_token:
                found.append(".".join(path))

    if output:
        walk(output, [], False)
    return [path for path in found if (service, path.rpartition(".")[2]) not in exceptions.NO_SECRETS
            and (service, operation) not in exceptions.NO_SECRETS]
