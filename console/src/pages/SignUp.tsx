import { Alert, Button, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Link, Navigate, useSearchParams } from "react-router";
import * as identity from "../api/identity";
import { startSession } from "../api/session";
import { useSession } from "../lib/hooks";
import { fieldError, formError } from "../ui/fields";
import { Password } from "../ui/Password";
import { safeNext } from "./SignIn";
import { SignLayout } from "./SignLayout";
import classes from "./Sign.module.css";

export default function SignUp() {
  const session = useSession();
  const [parameters] = useSearchParams();
  const [handle, setHandle] = useState("");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const next = parameters.get("next");

  const signUp = useMutation({
    mutationFn: async () => {
      const account = { handle: handle.trim().replace(/^@/, ""), password };
      await identity.signUp(name.trim() === "" ? account : { ...account, name: name.trim() });
      return identity.logIn(account);
    },
    onSuccess: startSession,
  });

  if (session !== null) return <Navigate to={safeNext(next)} replace />;
  const general = formError(signUp.error, ["handle", "name", "password"]);
  return (
    <SignLayout
      title="Make an account"
      foot={
        <span>
          Have one already? <Link to={next === null ? "/signin" : `/signin?next=${encodeURIComponent(next)}`}>Sign in</Link>
        </span>
      }
    >
      <form
        className={classes.form}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          signUp.mutate();
        }}
      >
        {general !== undefined && (
          <Alert color="red" role="alert" variant="light" c="var(--danger)">
            {general}
          </Alert>
        )}
        <TextInput
          label="Handle"
          description="1 to 32 of a–z, 0–9 and _. It can't be changed later."
          name="username"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          autoFocus
          leftSection="@"
          value={handle}
          onChange={(event) => setHandle(event.currentTarget.value)}
          error={fieldError(signUp.error, "handle")}
        />
        <TextInput
          label="Name"
          name="name"
          autoComplete="name"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={fieldError(signUp.error, "name")}
        />
        <Password
          label="Password"
          description="Long beats clever: a few words are better than one with symbols."
          name="password"
          autoComplete="new-password"
          value={password}
          onChange={(event) => setPassword(event.currentTarget.value)}
          error={fieldError(signUp.error, "password")}
          reveals="the password"
        />
        <Button type="submit" fullWidth size="md" mt={4} loading={signUp.isPending}>
          Make the account
        </Button>
      </form>
    </SignLayout>
  );
}
