// Renders /openapi.json: every operation with its parameters, shapes and answers, and a form to try it.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let api;

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function resolve(part) {
  let found = part;
  for (let hops = 0; found && found.$ref && hops < 10; hops++) {
    found = found.$ref.replace(/^#\//, "").split("/").reduce((at, key) => at && at[key], api);
  }
  return found || {};
}

// A schema in the words of an example: names, types, and what is optional.
function shape(schema, depth = 0) {
  if (!schema) return "any";
  const name = schema.$ref && schema.$ref.split("/").pop();
  const target = resolve(schema);
  if (depth > 5) return name || "…";
  const variants = target.oneOf || target.anyOf;
  if (variants) return variants.map((variant) => shape(variant, depth + 1)).join(" | ");
  if (target.allOf) return target.allOf.map((part) => shape(part, depth + 1)).join(" & ");
  if (target.enum) return target.enum.map((value) => JSON.stringify(value)).join(" | ");
  const types = [].concat(target.type || (target.properties ? "object" : "any"));
  return types.map((type) => {
    if (type === "array") return `[${shape(target.items, depth + 1)}]`;
    if (type !== "object" || !target.properties) return target.format ? `${type} (${target.format})` : type;
    const indent = "  ".repeat(depth + 1);
    const required = new Set(target.required || []);
    const lines = Object.entries(target.properties).map(([key, value]) =>
      `${indent}${key}${required.has(key) ? "" : "?"}: ${shape(value, depth + 1)}`);
    return `{\n${lines.join("\n")}\n${"  ".repeat(depth)}}`;
  }).join(" | ");
}

function example(schema, depth = 0) {
  const target = resolve(schema);
  if (target.example !== undefined) return target.example;
  if (target.examples && target.examples.length) return target.examples[0];
  if (target.default !== undefined) return target.default;
  if (target.enum) return target.enum[0];
  const type = [].concat(target.type || "object")[0];
  if (type === "string") return "";
  if (type === "integer" || type === "number") return target.minimum || 0;
  if (type === "boolean") return false;
  if (type === "array" || depth > 4) return [];
  const made = {};
  for (const key of target.required || []) made[key] = example((target.properties || {})[key] || {}, depth + 1);
  return made;
}

function parameterTable(parameters, inputs) {
  const rows = parameters.map((parameter) => {
    const input = element("input", { "aria-label": `${parameter.name} (${parameter.in})` });
    inputs.push({ parameter, input });
    return element("tr", {},
      element("td", {}, element("code", { text: parameter.name }), parameter.required ? " *" : ""),
      element("td", { text: parameter.in }),
      element("td", { text: shape(parameter.schema) }),
      element("td", { text: parameter.description || "" }),
      element("td", {}, input));
  });
  const head = element("tr", {}, ...["Name", "In", "Type", "About", "Value"].map((text) => element("th", { scope: "col", text })));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

async function send(method, path, inputs, body, out) {
  const query = new URLSearchParams();
  const headers = {};
  let address = path;
  for (const { parameter, input } of inputs) {
    if (input.value === "" && parameter.in !== "path") continue;
    if (parameter.in === "path") address = address.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    if (parameter.in === "query") query.append(parameter.name, input.value);
    if (parameter.in === "header") headers[parameter.name] = input.value;
  }
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const url = query.size ? `${address}?${query}` : address;
  out.textContent = "…";
  try {
    const answer = await fetch(url, { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: as it is */ }
    out.textContent = `${answer.status} ${answer.statusText}\n\n${shown}`;
  } catch (error) {
    out.textContent = String(error);
  }
}

function details(method, path, operation) {
  const inputs = [];
  const parameters = (operation.parameters || []).map(resolve);
  const parts = [];
  if (operation.description) parts.push(element("p", { text: operation.description }));
  if (parameters.length) parts.push(element("h3", { text: "Parameters" }), parameterTable(parameters, inputs));
  let body;
  const content = operation.requestBody && resolve(operation.requestBody).content;
  if (content) {
    const schema = (content["application/json"] || Object.values(content)[0] || {}).schema;
    body = element("textarea", { "aria-label": "Body", spellcheck: "false" });
    body.value = JSON.stringify(example(schema), null, 2);
    parts.push(element("h3", { text: "Body" }), element("pre", { text: shape(schema) }), body);
  }
  parts.push(element("h3", { text: "Answers" }));
  for (const [status, response] of Object.entries(operation.responses || {})) {
    const target = resolve(response);
    const schema = target.content && (Object.values(target.content)[0] || {}).schema;
    parts.push(element("p", {}, element("code", { text: status }), ` ${target.description || ""}`));
    if (schema && status.startsWith("2")) parts.push(element("pre", { text: shape(schema) }));
  }
  const out = element("pre", { role: "status" });
  if (!operation["x-holon-live"]) {
    const button = element("button", { type: "button", text: "Send" });
    button.addEventListener("click", () => send(method, path, inputs, body, out));
    parts.push(button, out);
  }
  return parts;
}

function operationNode(method, path, operation) {
  const inside = element("div", { class: "body" });
  const node = element("details", { id: operation.operationId },
    element("summary", {},
      element("span", { class: "method", text: method.toUpperCase() }),
      element("code", { text: path }),
      element("span", { text: operation.summary || "" }),
      element("span", { class: "access", text: operation["x-holon-access"] || "" })),
    inside);
  node.addEventListener("toggle", () => {
    if (node.open && !inside.childElementCount) inside.append(...details(method, path, operation));
  });
  node.dataset.words = `${method} ${path} ${operation.summary || ""} ${operation.operationId || ""}`.toLowerCase();
  return node;
}

function render() {
  document.title = `${api.info.title} API`;
  document.querySelector("h1").textContent = `${api.info.title} API ${api.info.version}`;
  const main = document.getElementById("operations");
  let count = 0;
  for (const tag of api.tags || []) {
    const nodes = [];
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        const operation = item[method];
        if (operation && (operation.tags || []).includes(tag.name)) nodes.push(operationNode(method, path, operation));
      }
    }
    count += nodes.length;
    if (!nodes.length) continue;
    main.append(element("section", {}, element("h2", { text: tag.name }), element("p", { text: tag.description || "" }), ...nodes));
  }
  const summary = document.getElementById("summary");
  summary.replaceChildren(`${count} operations. The document: `, element("a", { href: "/openapi.json", text: "/openapi.json" }));
  if (location.hash) {
    const wanted = document.getElementById(location.hash.slice(1));
    if (wanted) { wanted.open = true; wanted.scrollIntoView(); }
  }
}

function applyFilter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const node of document.querySelectorAll("details")) {
    node.hidden = !words.every((word) => node.dataset.words.includes(word));
  }
  for (const section of document.querySelectorAll("section")) {
    section.hidden = ![...section.querySelectorAll("details")].some((node) => !node.hidden);
  }
}

document.getElementById("settings").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filter").addEventListener("input", applyFilter);
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((found) => { api = found; render(); })
  .catch((error) => { document.getElementById("summary").textContent = `Cannot load the document: ${error}`; });
