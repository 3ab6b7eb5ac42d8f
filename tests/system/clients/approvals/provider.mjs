// An OpenID provider for one test: oidc-provider with its own test pages, and accounts that say their groups.
// Arguments: port, client's secret, folder. It prints "ready", and reads the groups of everybody from groups.json anew
// each time.
import { readFileSync } from "node:fs";
import "./node_18.mjs";
const { Provider } = await import("oidc-provider");

const [port, secret, folder, origin] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const groups = (who) => JSON.parse(readFileSync(`${folder}/groups.json`, "utf8"))[who] ?? [];

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "chaperone",
      client_secret: secret,
      redirect_uris: [`${origin}/sign-in/callback`],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ["sub", "groups", "email"] },
  // In the ID token, not at userinfo alone.
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: true } },
  cookies: { keys: ["only for this test"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, groups: groups(id) }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
