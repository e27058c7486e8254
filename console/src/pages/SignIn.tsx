import { Alert, Button, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { Link, Navigate, useSearchParams } from "react-router";
import * as identity from "../api/identity";
import { startSession, startTokenSession } from "../api/session";
import { useSession } from "../lib/hooks";
import { fieldError, formError } from "../ui/fields";
import { Password } from "../ui/Password";
import { SignLayout } from "./SignLayout";
import classes from "./Sign.module.css";

/** Only a place in this console; never somebody else's address. */
export function safeNext(next: string | null): string {
  return next !== null && next.startsWith("/") && !next.startsWith("//") && !next.includes("\\") ? next : "/";
}

export default function SignIn() {
  const session = useSession();
  const [parameters] = useSearchParams();
  const [withToken, setWithToken] = useState(false);
  const next = parameters.get("next");

  if (session !== null) return <Navigate to={safeNext(next)} replace />;
  return (
    <SignLayout
      title="Sign in to Holon"
      foot={
        <>
          <span>
            New here?{" "}
            <Link to={next === null ? "/signup" : `/signup?next=${encodeURIComponent(next)}`}>Make an account</Link>
          </span>
          <button type="button" className={classes.plain} onClick={() => setWithToken(!withToken)}>
            {withToken ? "Sign in with a password" : "Sign in with a token"}
          </button>
        </>
      }
    >
      {withToken ? <TokenForm /> : <PasswordForm />}
    </SignLayout>
  );
}

function PasswordForm() {
  const [handle, setHandle] = useState("");
  const [password, setPassword] = useState("");
  const logIn = useMutation({
    mutationFn: () => identity.logIn({ handle: handle.trim().replace(/^@/, "").toLowerCase(), password }),
    onSuccess: startSession,
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    logIn.mutate();
  };
  const general = formError(logIn.error, ["handle", "password"]);
  return (
    <form className={classes.form} onSubmit={submit}>
      {general !== undefined && (
        <Alert color="red" role="alert" variant="light" c="var(--danger)">
          {general}
        </Alert>
      )}
      <TextInput
        label="Handle"
        name="username"
        autoComplete="username"
        autoCapitalize="none"
        spellCheck={false}
        required
        withAsterisk={false}
        autoFocus
        value={handle}
        onChange={(event) => setHandle(event.currentTarget.value)}
        error={fieldError(logIn.error, "handle")}
      />
      <Password
        label="Password"
        name="password"
        autoComplete="current-password"
        required
        withAsterisk={false}
        value={password}
        onChange={(event) => setPassword(event.currentTarget.value)}
        error={fieldError(logIn.error, "password")}
        reveals="the password"
      />
      <Button type="submit" fullWidth size="md" mt={4} loading={logIn.isPending}>
        Sign in
      </Button>
    </form>
  );
}

function TokenForm() {
  const [token, setToken] = useState("");
  const use = useMutation({
    mutationFn: () => identity.meWith(token.trim()),
    onSuccess: (me) => startTokenSession(token.trim(), me),
  });
  return (
    <form
      className={classes.form}
      onSubmit={(event) => {
        event.preventDefault();
        use.mutate();
      }}
    >
      <Password
        label="Token"
        description="An API key, or the administrator's from admin.token in the data directory."
        name="token"
        autoComplete="off"
        required
        withAsterisk={false}
        autoFocus
        value={token}
        onChange={(event) => setToken(event.currentTarget.value)}
        error={formError(use.error, [])}
        reveals="the token"
      />
      <Button type="submit" fullWidth size="md" mt={4} loading={use.isPending} disabled={token.trim() === ""}>
        Sign in
      </Button>
    </form>
  );
}
