"""Credentials for schemathesis: operations that end the caller's session or account get a throwaway account each."""

import itertools
import json
import os
import threading
import urllib.error
import urllib.request

import schemathesis

URL = os.environ["HOLON_URL"]
ROLE = os.environ["HOLON_ROLE"]
with open(os.environ["HOLON_TOKEN_FILE"]) as file:
    ADMIN = file.read().strip()

# What the caller cannot come back from.
LAST_ACTS = {("DELETE", "/v1/identity/me"), ("POST", "/v1/identity/logout"), ("POST", "/v1/identity/logout/all"),
             ("PUT", "/v1/identity/me/password"),
             ("DELETE", "/v1/identity/me/keys/{id}"), ("DELETE", "/v1/identity/me/sessions/{id}")}
numbers = itertools.count(1)
lock = threading.Lock()


def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), method="POST",
                                     headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from error


def token_of_new_account():
    with lock:
        handle = f"fuzz_{ROLE[:5]}_{next(numbers)}"
    post("/v1/identity/accounts", {"handle": handle})
    return post(f"/v1/identity/accounts/{handle}/tokens", {"expiresIn": 3600})["accessToken"]


member = None


@schemathesis.auth(refresh_interval=None)
class Credentials:
    def get(self, case, context):
        global member
        if ROLE == "nobody":
            return ""
        if (case.method.upper(), case.path) in LAST_ACTS:
            return token_of_new_account()
        if ROLE == "administrator":
            return ADMIN
        if member is None:
            member = token_of_new_account()
        return member

    def set(self, case, data, context):
        if data:
            case.headers = case.headers or {}
            case.headers["Authorization"] = f"Bearer {data}"
