// What oidc-provider takes for granted and Debian 12's Node 18 hasn't got. Imported before it.
URL.parse ??= (url, base) => (URL.canParse?.(url, base) ?? tried(url, base)) ? new URL(url, base) : null;

function tried(url, base) {
  try {
    return Boolean(new URL(url, base));
  } catch {
    return false;
  }
}
