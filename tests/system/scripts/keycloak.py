"""Asks a Keycloak for what a test needs: URL of the realm, the authority's certificate, and

token CLIENT SECRET   a token for a job, by client credentials
rotate PASSWORD       has the realm sign by a new key; PASSWORD is the administrator's
enter URL CODE USER PASSWORD   what a person does in a browser to log in by a device's code
"""

import html.parser
import http.cookiejar
import json
import ssl
import sys
import urllib.parse
import urllib.request

realm, authority, what, *given = sys.argv[1:]
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority)),
    urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
)


def post(url, fields, headers={}):
    return opener.open(urllib.request.Request(url, urllib.parse.urlencode(fields).encode(), headers))


def token(of, fields):
    with post(f"{of}/protocol/openid-connect/token", fields) as answer:
        return json.load(answer)["access_token"]


class Forms(html.parser.HTMLParser):
    """A page's first form: where it goes, and what it has filled in."""

    def __init__(self):
        super().__init__()
        self.action, self.fields = None, {}

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = attributes["action"]
        if tag == "input" and attributes.get("name") and attributes.get("type") in ("hidden", "submit"):
            self.fields[attributes["name"]] = attributes.get("value", "")


def enter(url, code, user, password):
    answer = opener.open(f"{url}?{urllib.parse.urlencode({'user_code': code})}")
    for filled in ({"username": user, "password": password}, {}):
        page = answer.read().decode()
        forms = Forms()
        forms.feed(page)
        if forms.action is None:
            break
        # Asked whether the device may: the button that says no isn't pressed.
        fields = {name: value for name, value in forms.fields.items() if name != "cancel"}
        answer = post(urllib.parse.urljoin(answer.url, forms.action), {**fields, **filled})
    return {"status": answer.status, "text": page if forms.action is None else answer.read().decode()}


def rotate(password):
    master = realm.replace("/realms/company", "/realms/master")
    fields = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": password}
    bearer = {"Authorization": f"Bearer {token(master, fields)}", "Content-Type": "application/json"}
    admin = realm.replace("/realms/", "/admin/realms/")
    with opener.open(urllib.request.Request(admin, headers=bearer)) as answer:
        parent = json.load(answer)["id"]
    key = {
        "name": "newer", "parentId": parent, "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
        "config": {"priority": ["200"], "keySize": ["2048"], "algorithm": ["RS256"]},
    }
    opener.open(urllib.request.Request(f"{admin}/components", json.dumps(key).encode(), bearer)).close()


if what == "token":
    client, secret = given
    print(token(realm, {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}), end="")
elif what == "rotate":
    rotate(*given)
else:
    print(json.dumps(enter(*given)))
