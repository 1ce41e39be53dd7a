"""Holds exchanges with a stand-in against what the vendor publishes for programs: an OpenAPI or discovery document, or a library generated from one.

`check.py VENDOR < EXCHANGES` reads a JSON object a line, {method, path, query, type, body, status, answer}, bodies as the texts that they were, and prints one line for each thing that does not fit:
a path or a method that is not published, a parameter or a field that has no such name, a required one that is missing, a value of another type. It reads the
installed packages' files, and runs none of their code. The last line says how many exchanges were held against it.

A shape is {"kind": "any" | "text" | "number" | "boolean"}, {"kind": "list", "of": shape}, {"kind": "map", "of": shape}, {"ref": name}, or
{"kind": "object", "fields": {name: shape}, "required": [name]}; `open` lets other fields be.
"""

import ast
import json
import re
import sys
import sysconfig
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

PACKAGES = Path(sysconfig.get_paths()["purelib"])
ANY, TEXT, NUMBER, BOOLEAN = ({"kind": kind} for kind in ("any", "text", "number", "boolean"))


class Published:
    """What one vendor publishes. `routes`: method, pattern of the path, names of query parameters (None: any), shape of the body, shapes of answers by status."""

    def __init__(self):
        self.routes = []

    def shape(self, name):
        raise KeyError(name)

    def add(self, method, path, query, body, answers):
        pattern = re.sub(r"\\\{\\?\+?\w+\\\}", "[^/]+", re.escape("/" + path.strip("/")))
        self.routes.append((method, re.compile(pattern + "$"), query, body, answers))

    def problems(self, exchange):
        path = exchange["path"].rstrip("/")
        found = [r for r in self.routes if r[0] == exchange["method"] and r[1].match(path)]
        if not found:
            yield "nobody publishes this"
            return
        _, _, query, body, answers = min(found, key=lambda r: r[1].pattern.count("[^/]+"))
        for name in exchange["query"]:
            if query is not None and name not in query:
                yield f"the query has {name}"
        if exchange["status"] >= 300:
            # The request may be wrong, which is why it was refused; its answer must be right.
            yield from self.fits(answers.get(exchange["status"], answers.get("error", ANY)), exchange["answer"], "answer")
            return
        if body is not None and exchange["body"] is not None:
            yield from self.fits(body, exchange["body"], "body")
        yield from self.fits(answers.get(exchange["status"], answers.get("ok", ANY)), exchange["answer"], "answer")

    def fits(self, shape, value, at):
        if "ref" in shape:
            shape = self.shape(shape["ref"])
        kind = shape["kind"]
        if value is None or kind == "any":
            return
        is_right = {
            "text": isinstance(value, str),
            "number": isinstance(value, (int, float)) and not isinstance(value, bool) or isinstance(value, str) and bool(re.fullmatch(r"-?\d+(\.\d+)?", value)),
            "boolean": isinstance(value, bool) or value in ("true", "false"),
            "list": isinstance(value, list),
            "map": isinstance(value, dict),
            "object": isinstance(value, dict),
        }[kind]
        if not is_right:
            yield f"{at} is {json.dumps(value)[:60]}, and should be: {kind}"
        elif kind == "list":
            for i, item in enumerate(value):
                yield from self.fits(shape["of"], item, f"{at}[{i}]")
        elif kind == "map":
            for name, item in value.items():
                yield from self.fits(shape["of"], item, f"{at}.{name}")
        elif kind == "object":
            for name in shape.get("required", []):
                if name not in value:
                    yield f"{at} has no {name}"
            for name, item in value.items():
                if name in shape["fields"]:
                    yield from self.fits(shape["fields"][name], item, f"{at}.{name}")
                elif not shape.get("open"):
                    yield f"{at}.{name} is not published"
        elif kind == "text" and shape.get("one_of") and value not in shape["one_of"]:
            yield f"{at} is {value}, and should be one of {shape['one_of']}"


class Google(Published):
    """A discovery document of google-api-python-client."""

    def __init__(self, name):
        super().__init__()
        self.document = json.loads((PACKAGES / f"googleapiclient/discovery_cache/documents/{name}.json").read_text())
        self.methods(self.document)
        # https://cloud.google.com/apis/design/errors
        fault = {"kind": "object", "fields": {"code": NUMBER, "message": TEXT, "status": TEXT, "details": {"kind": "list", "of": ANY}}, "required": ["code", "message", "status"]}
        self.fault = {"kind": "object", "fields": {"error": fault}, "required": ["error"]}

    def methods(self, resource):
        for method in resource.get("methods", {}).values():
            query = {*self.document["parameters"], *method.get("parameters", {})}
            answers = {"ok": {"ref": method["response"]["$ref"]}, "error": {"ref": "!"}}
            body = {"ref": method["request"]["$ref"]} if "request" in method else None
            self.add(method["httpMethod"], method.get("flatPath", method["path"]), query, body, answers)
        for inner in resource.get("resources", {}).values():
            self.methods(inner)

    @cache
    def shape(self, name):
        return self.fault if name == "!" else self.read(self.document["schemas"][name])

    def read(self, schema):
        if "$ref" in schema:
            return {"ref": schema["$ref"]}
        match schema.get("type"):
            case "string":
                return {"kind": "number"} if schema.get("format") in ("int64", "uint64") else {"kind": "text", "one_of": schema.get("enum")}
            case "integer" | "number":
                return NUMBER
            case "boolean":
                return BOOLEAN
            case "array":
                return {"kind": "list", "of": self.read(schema["items"])}
            case "object" if "additionalProperties" in schema:
                return {"kind": "map", "of": self.read(schema["additionalProperties"])}
            case "object":
                return {"kind": "object", "fields": {name: self.read(field) for name, field in schema.get("properties", {}).items()}}
        return ANY


def typed(text):
    """A type as generated Python writes it."""
    text = re.sub(r"^Union\[Unset, (None, )?(.*)\]$", r"\2", text.strip())
    if listed := re.match(r"(?:list|List)\[(.*)\]$", text):
        return {"kind": "list", "of": typed(listed[1])}
    if mapped := re.match(r"(?:dict|Dict)[\[(]str, (.*)[\])]$", text):
        return {"kind": "map", "of": typed(mapped[1])}
    plain = {"str": TEXT, "datetime": TEXT, "date": TEXT, "int": NUMBER, "float": NUMBER, "bool": BOOLEAN, "object": ANY, "None": ANY, "dict": ANY, "Any": ANY}
    return plain.get(text) or {"ref": text}


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class HubSpot(Published):
    """hubspot-api-client, which HubSpot generates from its OpenAPI documents."""

    # The document has texts there; the guide, and the service, objects: https://developers.hubspot.com/docs/api-reference/search/guide#sort-search-results
    OTHERWISE = {("PublicObjectSearchRequest", "sorts"): {"kind": "list", "of": ANY}}

    # https://developers.hubspot.com/docs/api-reference/crm-sensitive-data/guide
    NEWER = {"/crm/v3/properties/{objectType}": {"dataSensitivity"}}

    def __init__(self):
        super().__init__()
        self.folder = PACKAGES / "hubspot/crm/objects"
        others = [PACKAGES / "hubspot/crm/owners/api/owners_api.py", PACKAGES / "hubspot/crm/properties/api/core_api.py"]
        for file in [*self.folder.glob("api/*_api.py"), *others]:
            for function in re.split(r"\n    def ", file.read_text()):
                if not (call := re.search(r'call_api\(\s*"([^"]+)",\s*"([A-Z]+)"', function)):
                    continue
                body = re.search(r":type (\w+): ((?!str|int|bool|list)[A-Z]\w+)", function)
                answers = {int(status): typed(name) for status, name in re.findall(r'(\d{3}): "(\w[^"]*)"', function)}
                query = set(re.findall(r'query_params.append\(\("(\w+)"', function)) | self.NEWER.get(call[1], set())
                self.add(call[2], call[1], query, typed(body[2]) if body else None, {**answers, "error": {"ref": "Error"}})

    @cache
    def shape(self, name):
        files = [PACKAGES / f"hubspot/crm/{part}/models/{snake(name)}.py" for part in ["objects", "properties"]]
        if not (file := next((file for file in files if file.exists()), None)):
            return ANY
        text = file.read_text()
        types, names = (ast.literal_eval(re.search(rf"{part} = (\{{.*?\}})\n", text, re.S)[1]) for part in ("openapi_types", "attribute_map"))
        required = [names[n] for n in re.findall(r"client_side_validation and (\w+) is None", text)]
        fields = {names[own]: self.OTHERWISE.get((name, own), typed(kind)) for own, kind in types.items()}
        # `status: error` comes with each fault, the others with 429: https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
        if name == "Error":
            fields |= dict.fromkeys(["status", "errorType", "policyName"], TEXT)
        if name == "ModelProperty":
            fields["dataSensitivity"] = TEXT
        return {"kind": "object", "fields": fields, "required": required}


class Jira(Published):
    """openapi-jira-client, generated by others from Atlassian's OpenAPI document of 2021."""

    # Of 2024: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/#api-rest-api-3-search-jql-get
    NEWER = ["/rest/api/3/search/jql"]

    def __init__(self):
        super().__init__()
        self.folder = PACKAGES / "openapi_jira_client"
        for path in self.NEWER:
            self.add("GET", path, None, None, {})
        for file in self.folder.glob("api/*/*.py"):
            text = file.read_text()
            if path := re.search(r'url = "\{\}(/[^"]+)"', text):
                method = re.search(r"httpx\.(\w+)\(", text)[1].upper()
                body = re.search(r"json_body: (\w+)", text)
                answers = {int(status): typed(name) for status, name in re.findall(r"response_(\d+) = (\w+)\.from_dict", text)}
                self.add(method, path[1], None, typed(body[1]) if body else None, answers)

    @cache
    def shape(self, name):
        file = self.folder / f"models/{snake(name)}.py"
        if not file.exists():
            return ANY
        text = file.read_text()
        if "(str, Enum)" in text:
            return {"kind": "text", "one_of": re.findall(r'^    \w+ = "(.*)"$', text, re.M)}
        names = {own.rstrip("_"): name for own, name in re.findall(r"(\w+?)_? = (?:UNSET\n.*?)?d\.pop\(\"(\w+)\"", text)}
        fields = {}
        for own, kind in re.findall(r"^    (\w+): ([^=\n]+?)(?: = UNSET)?$", text, re.M):
            camel = re.sub(r"_(\w)", lambda m: m[1].upper(), own.rstrip("_"))
            fields[names.get(own, camel)] = typed(kind)
        return {"kind": "object", "fields": fields, "open": not fields}


class Swagger(Published):
    """asana and mailchimp-marketing, which their vendors generate: paths, methods and, of Mailchimp, query parameters. Their bodies have no types."""

    def __init__(self, package, before):
        super().__init__()
        for file in (PACKAGES / package / "api").glob("*_api.py"):
            for function in re.split(r"\n    def ", file.read_text()):
                if call := re.search(r"call_api\(\s*'([^']+)', '([A-Z]+)'", function):
                    named = set(re.findall(r"query_params.append\(\('(\w+)'", function))
                    documented = set(re.findall(r":param \S+ (\w+):", function))
                    self.add(call[2], before + call[1], named | documented | {"fields", "exclude_fields"}, None, {})


class Stripe(Published):
    """stripe, whose parameters Stripe generates from its OpenAPI document."""

    ROUTES = {
        "GET /v1/customers": "CustomerListParams", "POST /v1/customers": "CustomerCreateParams", "POST /v1/customers/{id}": "CustomerUpdateParams",
        "DELETE /v1/customers/{id}": "CustomerDeleteParams", "GET /v1/customers/search": "CustomerSearchParams", "GET /v1/products/search": "ProductSearchParams",
        "GET /v1/products": "ProductListParams", "POST /v1/products": "ProductCreateParams", "POST /v1/products/{id}": "ProductUpdateParams",
        "GET /v1/prices": "PriceListParams", "GET /v1/payment_intents": "PaymentIntentListParams", "GET /v1/charges": "ChargeListParams",
        "GET /v1/refunds": "RefundListParams", "GET /v1/disputes": "DisputeListParams", "GET /v1/invoices": "InvoiceListParams",
        "GET /v1/subscriptions": "SubscriptionListParams", "GET /v1/payouts": "PayoutListParams", "GET /v1/balance_transactions": "BalanceTransactionListParams",
        "GET /v1/events": "EventListParams",
    }

    def __init__(self):
        super().__init__()
        for route, params in self.ROUTES.items():
            method, path = route.split()
            if method == "GET":
                self.add(method, path, set(self.shape(params)["fields"]), None, {})
            else:
                self.add(method, path, set(), {"ref": params}, {})

    @cache
    def shape(self, name):
        if not (file := self.file(name)):
            return ANY
        body = next(node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name).body
        annotated = [(node.target.id, ast.unparse(node.annotation)) for node in body if isinstance(node, ast.AnnAssign)]
        required = [field for field, kind in annotated if not kind.startswith("NotRequired")]
        return {"kind": "object", "fields": {field: self.read(kind) for field, kind in annotated}, "required": required}

    @cache
    def file(self, name):
        return next((f for f in (PACKAGES / "stripe/params").glob("*.py") if f"class {name}(" in f.read_text()), None)

    def read(self, kind):
        # Forms are texts, so that only the names of what is within can be held against it.
        inner = re.sub(r"^NotRequired\[|\]$", "", kind).strip("'\"")
        within = [part for part in re.split(r"[|\[\]]", inner) if "Params" in part]
        if "Dict[" in inner:
            return {"kind": "any"}
        if "List[" in inner:
            return {"kind": "list", "of": {"ref": within[0]} if within else TEXT}
        return {"ref": within[0]} if within and "Union" not in inner else ANY


class Slack(Published):
    """slack-sdk, in which each method of the Web API is a function with its arguments."""

    def __init__(self):
        super().__init__()
        tree = ast.parse((PACKAGES / "slack_sdk/web/client.py").read_text())
        client = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "WebClient")
        for function in (node for node in client.body if isinstance(node, ast.FunctionDef) and "_" in node.name):
            arguments = list(zip(function.args.kwonlyargs, function.args.kw_defaults))
            fields = {a.arg: TEXT if ast.unparse(a.annotation) in ("str", "Optional[str]") else ANY for a, _ in arguments}
            required = [a.arg for a, default in arguments if default is None]
            self.add("POST", "/api/" + function.name.replace("_", ".", 1), set(), {"kind": "object", "fields": fields, "required": required}, {})


class Meta(Published):
    """facebook-business: what an event, a person and a member of an audience are made of."""

    def __init__(self):
        super().__init__()
        at = PACKAGES / "facebook_business/adobjects"
        types = lambda file: ast.literal_eval(re.search(r"param_types = (\{.*?\n    \})", (at / "serverside" / file).read_text(), re.S)[1])
        scalar = lambda kind: {"str": TEXT, "int": NUMBER, "float": NUMBER, "bool": BOOLEAN}.get(kind, ANY)
        user = re.search(r"normalized_payload = \{(.*?)\n\s+\}", (at / "serverside/user_data.py").read_text(), re.S)[1]
        event = {name: scalar(kind) for name, kind in types("event.py").items()}
        event["user_data"] = {"kind": "object", "fields": dict.fromkeys([*re.findall(r"'(\w+)':", user), "ge"], ANY)}
        event["custom_data"] = {"kind": "object", "fields": {name: scalar(kind) for name, kind in types("custom_data.py").items()}, "open": True}
        body = {"kind": "object", "fields": {"data": {"kind": "list", "of": {"kind": "object", "fields": event}}, "test_event_code": TEXT}, "required": ["data"]}
        answer = {"kind": "object", "fields": {name: scalar(kind) for name, kind in types("event_response.py").items()}}
        self.add("POST", "/v26.0/{dataset}/events", set(), body, {"ok": answer})
        self.add("GET", "/v26.0/{id}", {"fields"}, None, {})
        self.add("POST", "/v26.0", set(), None, {})
        audience = (at / "helpers/customaudiencemixin.py").read_text()
        self.schema = set(re.findall(r"^ {12}\w+ = '([A-Z]+)'$", audience, re.M))

    def problems(self, exchange):
        yield from super().problems(exchange)
        for call in (exchange["body"] or {}).get("batch", []):
            payload = json.loads(form(call["body"])["payload"])
            yield from (f"members of audiences have no {field}" for field in payload["schema"] if field not in self.schema)
            if any(len(row) != len(payload["schema"]) for row in payload["data"]):
                yield "a member has not as many fields as are named"


VENDORS = {
    "asana": lambda: Swagger("asana", "/api/1.0"),
    "google_data_manager": lambda: Google("datamanager.v1"),
    "google_sheets": lambda: Google("sheets.v4"),
    "hubspot": HubSpot,
    "jira": Jira,
    "mailchimp": lambda: Swagger("mailchimp_marketing", "/3.0"),
    "meta_conversions": Meta,
    "slack": Slack,
    "stripe": Stripe,
}


def form(text):
    """`a[b]=1` as {"a": {"b": "1"}}, `a[0]=1` as {"a": ["1"]}."""
    whole = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        at, (*outer, last) = whole, re.findall(r"[^\[\]]+", name)
        for part in outer:
            at = at.setdefault(part, {})
        at[last] = value
    lists = lambda v: v if not isinstance(v, dict) else [*v.values()] if all(k.isdigit() for k in v) else {k: lists(i) for k, i in v.items()}
    return {name: lists(value) for name, value in whole.items()}


def read(text, kind=""):
    if not text or "form" in kind:
        return form(text) if text else None
    try:
        return json.loads(text)
    except ValueError:
        return None


def main():
    published = VENDORS[sys.argv[1]]()
    found, held = {}, 0
    for line in sys.stdin:
        exchange = json.loads(line)
        exchange["query"] = [name.split("[")[0] for name, _ in parse_qsl(exchange["query"], keep_blank_values=True)]
        exchange["body"] = read(exchange["body"], exchange["type"])
        exchange["answer"] = read(exchange["answer"])
        held += 1
        for problem in published.problems(exchange):
            found.setdefault(f"{exchange['method']} {exchange['path']} {exchange['status']}: {problem}", None)
    print("\n".join(found))
    print(f"{held} exchanges")
    sys.exit(1 if found or not held else 0)


if __name__ == "__main__":
    main()
