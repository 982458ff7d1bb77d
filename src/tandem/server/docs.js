// Draws /openapi.json and sends requests to this server. No library, nothing from elsewhere.
const byId = (id) => document.getElementById(id);
const SHOWN_CHARACTERS = 4000;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Text in which `words` between backticks are code.
function prose(text) {
  return (text ?? "").split("`").map((part, index) => (index % 2 ? element("code", { textContent: part }) : part));
}

// --- Schemas in words

function resolved(schema, spec) {
  const name = schema?.$ref?.split("/").pop();
  return name ? spec.components.schemas[name] : schema;
}

function words(schema, spec) {
  if (!schema) return "";
  if (schema.$ref) return words(resolved(schema, spec), spec);
  if (schema.anyOf) return [...new Set(schema.anyOf.map((one) => words(one, spec)))].join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return schema.items ? `list of ${words(schema.items, spec)}` : "list";
  if (schema.type === "object") return `{${Object.keys(schema.properties ?? {}).join(", ")}}`;
  const range = [["from", schema.minimum], ["to", schema.maximum]].filter(([, bound]) => bound !== undefined);
  return [schema.type ?? "anything", ...range.flat()].join(" ");
}

function meaning({ description, default: otherwise }) {
  const known = otherwise !== undefined && otherwise !== null;
  return [description, known && `The default is ${JSON.stringify(otherwise)}.`].filter(Boolean).join(" ");
}

function fieldRows(schema, spec) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).sort(([a], [b]) => required.has(b) - required.has(a));
  return fields.map(([name, field]) =>
    element("tr", {},
      element("th", { scope: "row" }, element("code", { textContent: name, className: required.has(name) ? "required" : "" })),
      element("td", { textContent: words(field, spec) }),
      element("td", {}, ...prose(meaning(field)))));
}

// --- Requests

function headersFor(withBody) {
  const key = byId("key").value.trim();
  return { ...(withBody && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
}

function asCurl(method, url, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const names = Object.entries(headersFor(body !== undefined)).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  const data = body === undefined ? [] : [`-d ${quoted(body)}`];
  return ["curl", ...(method === "GET" ? [] : [`-X ${method}`]), quoted(url), ...names, ...data].join(" ");
}

function shown(text, type) {
  let pretty = text;
  if (type?.includes("json") && text.length < SHOWN_CHARACTERS) {
    try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it came */ }
  }
  const rest = pretty.length - SHOWN_CHARACTERS;
  return rest > 0 ? `${pretty.slice(0, SHOWN_CHARACTERS)}\n… and ${rest.toLocaleString()} characters more` : pretty || "(no body)";
}

async function send(article, { method, url, body }) {
  const outcome = article.querySelector(".outcome");
  const button = article.querySelector("button[type=submit]");
  button.disabled = true;
  outcome.className = "outcome quiet";
  outcome.textContent = "waiting…";
  const started = performance.now();
  try {
    const reply = await fetch(url, { method, body, headers: headersFor(body !== undefined) });
    const text = await reply.text();
    const took = (performance.now() - started).toFixed(1);
    outcome.className = `outcome ${reply.ok ? "good" : "bad"}`;
    outcome.textContent = `${reply.status} ${reply.statusText} in ${took} ms, ${text.length.toLocaleString()} characters`;
    const box = article.querySelector(".reply");
    box.hidden = false;
    box.querySelector("pre").textContent = shown(text, reply.headers.get("content-type"));
    box.querySelector(".headers").textContent = [...reply.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  } catch (error) {
    outcome.className = "outcome bad";
    outcome.textContent = `no answer: ${error.message}`;
  } finally {
    button.disabled = false;
  }
}

// --- One operation

function drawOperation(path, method, operation, spec) {
  const article = byId("operation").content.cloneNode(true).firstElementChild;
  const find = (selector) => article.querySelector(selector);
  article.id = operation.operationId;
  find(".method").textContent = method.toUpperCase();
  find(".method").classList.add(method);
  find(".path").textContent = path;
  find(".summary").textContent = operation.summary;
  find(".description").append(...prose(operation.description));

  const content = operation.requestBody?.content["application/json"];
  const schema = resolved(content?.schema, spec);
  const area = find("textarea");
  if (schema) {
    find(".fields tbody").append(...fieldRows(schema, spec));
    find(".body").hidden = false;
    area.value = JSON.stringify(content.example ?? {}, null, 2);
    area.rows = Math.min(10, area.value.split("\n").length);
  } else {
    find(".fields").remove();
  }
  const [parameter] = operation.parameters ?? [];
  const input = find(".parameter input");
  input.required = Boolean(parameter);
  if (parameter) {
    find(".parameter").hidden = false;
    find(".parameter span").textContent = parameter.name;
    input.value = parameter.example ?? "";
  }
  const gives = resolved(operation.responses["200"]?.content?.["application/json"]?.schema, spec);
  if (gives) find(".gives pre").textContent = JSON.stringify(gives, null, 2);
  else find(".gives").remove();

  const request = () => ({
    method: method.toUpperCase(),
    url: location.origin + path.replace(/\{.*\}/, () => encodeURIComponent(input.value)),
    body: schema ? area.value : undefined,
  });
  find("form").addEventListener("submit", (event) => { event.preventDefault(); send(article, request()); });
  find(".copy").addEventListener("click", async () => {
    const { method: verb, url, body } = request();
    const line = asCurl(verb, url, body);
    const outcome = find(".outcome");
    outcome.className = "outcome quiet";
    try {
      await navigator.clipboard.writeText(line);
      outcome.textContent = "copied";
    } catch {
      outcome.textContent = line; // no clipboard on plain HTTP from elsewhere
    }
  });
  return article;
}

// --- The page

function draw(spec) {
  byId("version").textContent = spec.info.version;
  byId("lead").replaceChildren(...prose(spec.info.description));
  for (const tag of spec.tags) {
    const list = element("ul");
    const id = `tag-${tag.name.toLowerCase().replaceAll(" ", "-")}`;
    const section = element("section", {}, element("h2", { id, textContent: tag.name }),
      element("p", { className: "quiet", textContent: tag.description }));
    section.setAttribute("aria-labelledby", id);
    for (const [path, methods] of Object.entries(spec.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags[0] !== tag.name) continue;
        section.append(drawOperation(path, method, operation, spec));
        list.append(element("li", {}, element("a", { href: `#${operation.operationId}`, textContent: path })));
      }
    }
    byId("contents").append(element("h2", { textContent: tag.name }), list);
    byId("main").append(section);
  }
}

async function showReadiness() {
  const line = byId("ready");
  try {
    const { status, reason } = await (await fetch("/readyz")).json();
    line.className = status === "ok" ? "good" : "bad";
    line.textContent = status === "ok" ? "ready" : reason;
  } catch {
    line.className = "bad";
    line.textContent = "the server does not answer";
  }
}

const THEMES = { auto: ["◐", "as the system has them"], light: ["☀", "light"], dark: ["☾", "dark"] };

function setTheme(name) {
  const [sign, label] = THEMES[name];
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = sign;
  byId("theme").setAttribute("aria-label", `Colours: ${label}`);
  try { localStorage.setItem("theme", name); } catch { /* private windows keep nothing */ }
}

function storedTheme() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}

setTheme(THEMES[storedTheme()] ? storedTheme() : "auto");
byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
});
byId("key-form").addEventListener("submit", (event) => event.preventDefault());
showReadiness();
setInterval(showReadiness, 10_000);
try {
  draw(await (await fetch("/openapi.json")).json());
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
} catch (error) {
  byId("lead").className = "bad";
  byId("lead").textContent = `The specification can not be read: ${error.message}`;
}
