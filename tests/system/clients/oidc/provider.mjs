// An OpenID provider for one test: oidc-provider over TLS with its own test pages, told what to do line by line, each a JSON
// array: a name and its arguments. It answers with one JSON line each. Arguments: port, certificate, key.
import { createHmac, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:https";
import { createInterface } from "node:readline";
import { request as plain } from "node:http";
import "./node_18.mjs";
const { Provider } = await import("oidc-provider");

const [port, certificate, key] = process.argv.slice(2);
const issuer = `https://127.0.0.1:${port}`;
const pair = { cert: readFileSync(certificate), key: readFileSync(key) };
const keys = new Map();
// What is answered in the provider's place, by path.
const instead = new Map();
const renewals = [];
let server;

function keyOf(name) {
  if (!keys.has(name)) {
    keys.set(name, generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey);
  }
  return keys.get(name);
}

const publicOf = (name) => createPublicKey(keyOf(name)).export({ format: "jwk" });
const b64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

function made(names, seconds) {
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "ci-job-7",
        client_secret: "a-secret-of-the-runner",
        redirect_uris: [],
        response_types: [],
        grant_types: ["client_credentials"],
      },
      {
        // RFC 8252: a native program, whose loopback address may have any port.
        client_id: "chaperone-cli",
        application_type: "native",
        token_endpoint_auth_method: "none",
        redirect_uris: ["http://127.0.0.1/callback"],
        response_types: ["code"],
        grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      },
    ],
    jwks: { keys: names.map((kid) => ({ ...keyOf(kid).export({ format: "jwk" }), kid, alg: "RS256", use: "sig" })) },
    claims: { openid: ["sub", "groups", "email"] },
    // In the ID token, not at userinfo alone.
    conformIdTokenClaims: false,
    cookies: { keys: ["only for this test"] },
    ttl: { IdToken: seconds.token ?? 600, DeviceCode: seconds.code ?? 600, RefreshToken: 3600, Grant: 3600, Session: 3600 },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: "",
          audience: resource.replace("urn:", ""),
          accessTokenFormat: "jwt",
          accessTokenTTL: 600,
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
    extraTokenClaims: () => ({ groups: ["builders"], email: "alice@example.com" }),
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, groups: ["builders"] }),
    }),
  });
  provider.on("refresh_token.saved", (token) => renewals.push(token));
  return provider;
}

// One request, without redirects: status, fields and text.
function ask(url, { method = "GET", headers = {}, body } = {}) {
  const by = url.startsWith("https:") ? request : plain;
  return new Promise((resolve, reject) => {
    const asked = by(url, { method, headers, ca: pair.cert, rejectUnauthorized: false }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () =>
        resolve({ status: answer.statusCode, headers: answer.headers, text: Buffer.concat(parts).toString() }),
      );
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

const form = (fields) => ({
  method: "POST",
  headers: { "content-type": "application/x-www-form-urlencoded" },
  body: new URLSearchParams(fields).toString(),
});

// A person in a browser: follows redirects, and fills in each form that a page has, until there is none or nothing to fill in.
async function browse(url, fill) {
  const cookies = new Map();
  let next = { url };
  for (let steps = 0; steps < 40; steps += 1) {
    const { url: at, ...how } = next;
    const own = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await ask(at, { ...how, headers: { ...how.headers, ...(own ? { cookie: own } : {}) } });
    for (const cookie of answer.headers["set-cookie"] ?? []) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    if (answer.headers.location) {
      next = { url: new URL(answer.headers.location, at).href };
      continue;
    }
    const shown = () => {
      const text = answer.text.replace(/<style[^]*?<\/style>|<[^>]*>/g, " ").replace(/\s+/g, " ");
      return { url: at, status: answer.status, text };
    };
    const page = /<form[^>]*action="([^"]*)"[^>]*>/.exec(answer.text);
    if (answer.status >= 400 || !page) {
      return shown();
    }
    const fields = {};
    for (const [input] of answer.text.matchAll(/<input[^>]*>/g)) {
      const value = (name) => new RegExp(`\\b${name}="([^"]*)"`).exec(input)?.[1];
      if (value("name")) fields[value("name")] = value("value") ?? "";
    }
    const action = new URL(page[1].replaceAll("&amp;", "&"), at).href;
    const filled = fill(fields);
    if (!filled) return shown();
    next = { url: action, ...form(filled) };
  }
  throw new Error(`no end after 40 pages: ${next.url}`);
}

// Who signs in, agrees to everything, and has this code.
const person = (who, code) => (fields) => ({
  ...fields,
  ...("login" in fields ? { login: who, password: "anything" } : {}),
  ...("user_code" in fields && !fields.user_code ? { user_code: code } : {}),
});

const acts = {
  async start(names, seconds = {}) {
    const callback = made(names, seconds).callback();
    server = createServer(pair, (incoming, outgoing) => {
      const answer = instead.get(incoming.url);
      if (answer === undefined) return callback(incoming, outgoing);
      outgoing.setHeader("content-type", "application/json");
      return outgoing.end(JSON.stringify(answer));
    });
    await new Promise((resolve, reject) => server.on("error", reject).listen(Number(port), "127.0.0.1", resolve));
  },
  async stop() {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  },
  // A job's token, from the provider's own token endpoint.
  async job(audience) {
    const how = form({ grant_type: "client_credentials", resource: `urn:${audience}` });
    how.headers.authorization = `Basic ${Buffer.from("ci-job-7:a-secret-of-the-runner").toString("base64")}`;
    const answer = await ask(`${issuer}/token`, how);
    if (answer.status !== 200) throw new Error(answer.text);
    return JSON.parse(answer.text).access_token;
  },
  // What the provider would never say, by one of its keys. `how` is the algorithm.
  forged(name, how, header, claims) {
    const now = Math.floor(Date.now() / 1000);
    const own = { iss: issuer, aud: "chaperone", sub: "ci-job-7", iat: now, exp: now + 600, groups: ["builders"] };
    const head = b64({ alg: how, kid: name, typ: "JWT", ...header });
    const text = `${head}.${b64({ ...own, email: "alice@example.com", ...claims })}`;
    const secret = createPublicKey(keyOf(name)).export({ type: "spki", format: "pem" });
    const by = {
      none: () => "",
      HS256: () => createHmac("sha256", secret).update(text).digest("base64url"),
      RS256: () => sign("sha256", Buffer.from(text), keyOf(name)).toString("base64url"),
    };
    return `${text}.${by[how]()}`;
  },
  answer(path, value) {
    if (value === null) instead.delete(path);
    else instead.set(path, value);
  },
  publicKey: (name) => publicOf(name),
  // A person enters a code, or refuses to.
  enter: (url, code, who) => browse(url, person(who, code)),
  refuse(url, code) {
    let refused = false;
    return browse(url, (fields) => {
      const { confirm, ...others } = person("mallory", code)(fields);
      if (refused) return null;
      refused = Boolean(confirm);
      return refused ? { ...others, abort: "yes" } : others;
    });
  },
  signIn: (url, who) => browse(url, person(who)),
  // Takes back whatever could be renewed; gives how much that was.
  async revoke() {
    const all = renewals.splice(0);
    await Promise.all(all.map((token) => token.destroy()));
    return all.length;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await acts[name](...rest)) ?? null };
  } catch (error) {
    answer = { failed: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(answer));
}
process.exit();
