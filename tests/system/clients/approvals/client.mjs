// A client made from the API's own description, which is validated first: lists the questions, and answers the first one.
import { Validator } from "@seriousme/openapi-schema-validator";
import { OpenAPIClientAxios } from "openapi-client-axios";
import { readFileSync } from "node:fs";
import { Agent } from "node:https";

const [origin, description, token, certificate, how] = process.argv.slice(2);
const document = JSON.parse(readFileSync(description, "utf8"));
const { valid, errors } = await new Validator().validate(structuredClone(document));
if (!valid) {
  throw new Error(JSON.stringify(errors));
}
const api = new OpenAPIClientAxios({
  definition: document,
  withServer: { url: origin },
  axiosConfigDefaults: {
    headers: { authorization: `Bearer ${token}` },
    httpsAgent: new Agent({ ca: readFileSync(certificate) }),
    proxy: false,
  },
});
const client = await api.init();
const me = (await client.me()).data;
const { questions } = (await client.listQuestions()).data;
const { id } = (await client.showQuestion({ id: questions[0].id })).data;
const answered = await client[how]({ id }, { reason: "by a client that was generated" });
const again = await client[how]({ id }, {}, { validateStatus: () => true });
console.log(JSON.stringify({ me, id, state: answered.data.state, again: again.status, code: again.data.code }));
