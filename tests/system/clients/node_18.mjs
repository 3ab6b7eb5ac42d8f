// What oidc-provider takes for granted and Debian 12's Node 18 hasn't got. Imported before it.
import * as crypto from "node:crypto";
import { register } from "node:module";

globalThis.crypto ??= crypto.webcrypto;
URL.parse ??= (url, base) => {
  try {
    return new URL(url, base);
  } catch {
    return null;
  }
};

if (!crypto.hash) {
  const text = (source) => `data:text/javascript,${encodeURIComponent(source)}`;
  const shim = text(`
    import { createHash } from "node:crypto";
    export * from "node:crypto";
    export { default } from "node:crypto";
    export const hash = (name, data, how = "hex") => {
      const digest = createHash(name).update(data).digest();
      return how === "buffer" ? digest : digest.toString(how);
    };
  `);
  register(text(`
    export const resolve = (name, context, next) =>
      name === "node:crypto" && context.parentURL?.includes("/oidc-provider/")
        ? { url: ${JSON.stringify(shim)}, shortCircuit: true }
        : next(name, context);
  `));
}
