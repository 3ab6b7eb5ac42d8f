// What oidc-provider takes for granted and Debian 12's Node 18 hasn't got. Imported before it.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
URL.parse ??= (url, base) => {
  try {
    return new URL(url, base);
  } catch {
    return null;
  }
};
