const trouble = /CERT|SIGNATURE|ISSUER|SELF_SIGNED/;
const request = require("https").get({ host: process.argv[1], path: "/", timeout: 20000 }, (answer) => {
  console.log("verified https ");
  answer.destroy();
});
request.on("timeout", () => request.destroy(new Error("no answer in 20 s")));
request.on("error", (error) => console.log(trouble.test(error.code || "") ? "untrusted" : "failed", "https", error.code || "", error.message.split("\n")[0]));
