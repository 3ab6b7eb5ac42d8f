// Everything that is shown comes from the API, and is put in as text: agents choose most of these words.
"use strict";

const byId = (id) => document.getElementById(id);
const list = byId("questions");
const shown = new Map();
let token = null;
let timer = null;

async function ask(path, body) {
  const options = { headers: { accept: "application/json" }, credentials: "same-origin" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.headers["x-csrf-token"] = token;
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) {
    throw Object.assign(new Error(answer.detail), answer);
  }
  return answer;
}

function tell(problem) {
  byId("problem").textContent = problem;
  byId("problem").hidden = !problem;
}

function signedOut() {
  clearTimeout(timer);
  token = null;
  list.replaceChildren();
  shown.clear();
  byId("me").textContent = "";
  byId("sign-out").hidden = true;
  byId("ended-label").hidden = true;
  byId("sign-in").hidden = false;
  byId("status").textContent = "Sign in to see the questions of your groups.";
}

function failed(error) {
  if (error.code === "sign-in") {
    signedOut();
  } else {
    tell(error.message);
  }
}

// Times are counted by this device's clock, which may be wrong by minutes: it is only for people.
function left(question) {
  const seconds = Math.round((Date.parse(question.expires) - Date.now()) / 1000);
  if (seconds <= 0) {
    return "its time is over";
  }
  return seconds < 120 ? `${seconds} seconds left` : `${Math.round(seconds / 60)} minutes left`;
}

function state(question) {
  if (question.state === "pending") {
    const votes = question.votes.map((vote) => vote.by).join(", ");
    return `Waits for an answer, ${left(question)}${votes ? `; approved so far by ${votes}` : ""}`;
  }
  if (question.state === "denied") {
    return `Denied by ${question.denied.by}${question.denied.reason ? `: ${question.denied.reason}` : ""}`;
  }
  const by = question.votes.map((vote) => vote.by).join(", ");
  return question.state[0].toUpperCase() + question.state.slice(1) + (by ? `, approved by ${by}` : "");
}

function rows(question) {
  const about = question.about;
  const before = question.before;
  const requirements = question.requirements.map(
    (one) => `${one.needed} of ${one.groups.join(" or ")} (policy ${one.policy})`,
  );
  return [
    ["Agent", question.agent],
    ["Works for", question.sponsor],
    ["Command", about.command.join(" ")],
    ["In", about.directory],
    ["Program", about.executable],
    ["Wants", question.needs.map((need) => `${need.action} on ${need.resource}`).join("\n")],
    ["Call", `${about.service} ${about.operation}${about.region ? `, ${about.region}` : ""}`],
    ["Account", about.account],
    ["Why you are asked", about.why],
    ["Who must allow it", requirements.join("\n")],
    ["Asked", new Date(question.asked).toLocaleString()],
    ["The last day before", `went out ${before.used}×, denied ${before.denied}×, otherwise ${before.other}×`],
    ["Session", question.session],
    ["Id", question.id],
  ].filter(([, value]) => value);
}

function fill(item, question) {
  const what = question.needs.map((need) => need.action);
  item.querySelector("h2").textContent = `${question.agent}: ${[...new Set(what)].join(", ")}`;
  item.querySelector(".state").textContent = state(question);
  const entries = rows(question).flatMap(([name, value]) => {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    description.textContent = value;
    return [term, description];
  });
  item.querySelector("dl").replaceChildren(...entries);
  item.querySelector("pre").textContent = JSON.stringify(question.about.parameters, null, 2);
  item.querySelector("form").hidden = question.state !== "pending";
  item.dataset.state = question.state;
}

function made(question) {
  const item = byId("question").content.cloneNode(true).firstElementChild;
  item.dataset.id = question.id;
  const form = item.querySelector("form");
  const minutes = item.querySelector(".minutes");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.for.addEventListener("change", () => {
    minutes.hidden = form.elements.for.value === "once";
  });
  const answer = async (how) => {
    const body = { reason: form.elements.reason.value.trim() };
    if (how === "approve") {
      body.for = form.elements.for.value;
      if (body.for !== "once") {
        body.minutes = Number(form.elements.minutes.value);
      }
    }
    const buttons = item.querySelectorAll("button");
    for (const button of buttons) {
      button.disabled = true;
    }
    try {
      tell("");
      fill(item, await ask(`/api/v1/questions/${encodeURIComponent(question.id)}/${how}`, body));
      byId("status").textContent = how === "deny" ? "Denied." : "Your answer counts.";
    } catch (error) {
      failed(error);
    } finally {
      for (const button of buttons) {
        button.disabled = false;
      }
    }
  };
  item.querySelector(".deny").addEventListener("click", () => answer("deny"));
  item.querySelector(".allow").addEventListener("click", () => answer("approve"));
  return item;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const ended = byId("ended").checked;
    const { questions } = await ask(`/api/v1/questions?ended=${ended}`);
    const there = new Set(questions.map((question) => question.id));
    for (const [id, item] of shown) {
      if (!there.has(id)) {
        item.remove();
        shown.delete(id);
      }
    }
    for (const question of questions) {
      if (!shown.has(question.id)) {
        const item = made(question);
        shown.set(question.id, item);
        list.append(item);
      }
      fill(shown.get(question.id), question);
    }
    const open = questions.filter((question) => question.state === "pending").length;
    const text = open === 0 ? "Nothing waits for you." : open === 1 ? "1 call waits for an answer." : `${open} calls wait for an answer.`;
    // A screen reader says it again only when it changes.
    if (byId("status").textContent !== text) {
      byId("status").textContent = text;
    }
    document.title = `${open ? `(${open}) ` : ""}Approvals — Chaperone`;
    timer = setTimeout(refresh, 3000);
  } catch (error) {
    failed(error);
    if (error.code !== "sign-in") {
      timer = setTimeout(refresh, 5000);
    }
  }
}

async function begin() {
  try {
    const me = await ask("/api/v1/me");
    token = me.csrf_token;
    byId("me").textContent = `${me.display_name ? `${me.display_name}, ` : ""}${me.name} (${me.groups.join(", ") || "no group"})`;
    byId("sign-out").hidden = false;
    byId("ended-label").hidden = false;
    await refresh();
  } catch (error) {
    failed(error);
  }
}

byId("ended").addEventListener("change", refresh);
byId("sign-out").addEventListener("click", async () => {
  try {
    await ask("/api/v1/sign-out", {});
    signedOut();
  } catch (error) {
    failed(error);
  }
});
begin();
