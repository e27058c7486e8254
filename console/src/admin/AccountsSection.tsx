import { Button, CopyButton, Group, Modal, MultiSelect } from "@mantine/core";
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import * as identity from "../api/identity";
import { borrowSession } from "../api/session";
import type { ListedAccount } from "../api/types";
import { fullTime } from "../lib/format";
import { usePermission } from "../shell/me";
import { Endless } from "../ui/Endless";
import { formError } from "../ui/fields";
import { showDone, showProblem } from "../ui/notify";
import { Panel, TableFrame } from "../ui/Panel";
import { Failure, RowSkeletons } from "../ui/States";
import classes from "./Admin.module.css";

export default function AccountsSection() {
  const [editing, setEditing] = useState<ListedAccount | null>(null);
  const [minting, setMinting] = useState<ListedAccount | null>(null);
  const mayAssign = usePermission("identity.roles.assign");
  const mayMint = usePermission("identity.tokens.mint");
  const accounts = useInfiniteQuery({
    queryKey: ["accounts"],
    queryFn: ({ pageParam, signal }) => identity.accounts(pageParam, signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const items = accounts.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <Panel title="Accounts">
        {accounts.isPending && <RowSkeletons />}
        {accounts.isError && accounts.data === undefined && (
          <Failure error={accounts.error} retry={() => void accounts.refetch()} />
        )}
        {items.length > 0 && (
          <>
            <TableFrame label="Accounts">
              <thead>
                <tr>
                  <th>Account</th>
                  <th>Roles</th>
                  <th data-number>Since</th>
                  <th>
                    <span className="visually-hidden">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {items.map((account) => (
                  <tr key={account.id}>
                    <td>
                      <div className={classes.system}>
                        <Link to={`/u/${account.handle}`}>{account.name}</Link>
                        <span className={classes.summary}>@{account.handle}</span>
                      </div>
                    </td>
                    <td>
                      <div className={classes.chips}>
                        {account.roles.map((role) => (
                          <span key={role} className={classes.chip}>
                            {role}
                          </span>
                        ))}
                      </div>
                    </td>
                    <td data-number>{fullTime(account.created)}</td>
                    <td data-number>
                      <Group gap={6} justify="flex-end" wrap="nowrap">
                        <Button size="compact-xs" variant="default" disabled={mayAssign !== true} onClick={() => setEditing(account)}>
                          Roles
                        </Button>
                        <Button size="compact-xs" variant="default" disabled={mayMint !== true} onClick={() => setMinting(account)}>
                          Token
                        </Button>
                      </Group>
                    </td>
                  </tr>
                ))}
              </tbody>
            </TableFrame>
            <Endless
              more={accounts.hasNextPage}
              busy={accounts.isFetchingNextPage}
              error={accounts.isFetchNextPageError ? accounts.error : null}
              load={() => void accounts.fetchNextPage()}
            />
          </>
        )}
      </Panel>
      <Roles />
      {editing !== null && <RolesDialog account={editing} close={() => setEditing(null)} />}
      {minting !== null && <TokenDialog account={minting} close={() => setMinting(null)} />}
    </>
  );
}

function useRoles() {
  return useQuery({ queryKey: ["roles"], queryFn: ({ signal }) => identity.roles(signal), meta: { quiet: true } });
}

function Roles() {
  const roles = useRoles();
  return (
    <Panel title="Roles" text="A role is a set of permissions; who has several has all of theirs.">
      {roles.isPending && <RowSkeletons count={3} />}
      {roles.isError && roles.data === undefined && <Failure error={roles.error} />}
      {roles.data !== undefined && (
        <TableFrame label="Roles">
          <thead>
            <tr>
              <th>Role</th>
              <th>Permissions</th>
            </tr>
          </thead>
          <tbody>
            {roles.data.items.map((role) => (
              <tr key={role.name}>
                <td>{role.name}</td>
                <td>
                  <div className={classes.chips}>
                    {role.permissions.map((permission) => (
                      <span key={permission} className={`${classes.chip} ${classes.mono}`}>
                        {permission}
                      </span>
                    ))}
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </TableFrame>
      )}
    </Panel>
  );
}

function RolesDialog({ account, close }: { account: ListedAccount; close: () => void }) {
  const client = useQueryClient();
  const known = useRoles();
  const [roles, setRoles] = useState(account.roles);
  const save = useMutation({
    mutationFn: () => identity.assignRoles(account.handle, roles),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["accounts"] });
      showDone(`The roles of @${account.handle} are changed.`);
      close();
    },
  });
  return (
    <Modal opened onClose={close} title={`Roles of @${account.handle}`} centered closeButtonProps={{ "aria-label": "Close" }}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <MultiSelect
          label="Roles"
          data={[...new Set([...(known.data?.items.map((role) => role.name) ?? []), ...account.roles])]}
          value={roles}
          onChange={setRoles}
          error={formError(save.error, [])}
        />
        <Group justify="flex-end" mt="lg" gap="xs">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" loading={save.isPending}>
            Save
          </Button>
        </Group>
      </form>
    </Modal>
  );
}

function TokenDialog({ account, close }: { account: ListedAccount; close: () => void }) {
  const client = useQueryClient();
  const mint = useMutation({ mutationFn: () => identity.mintToken(account.handle), onError: showProblem });

  const actAs = (token: string, expiresIn: number) => {
    borrowSession(token, expiresIn, account);
    client.clear();
    window.location.assign("/");
  };

  return (
    <Modal opened onClose={close} title={`A token for @${account.handle}`} centered closeButtonProps={{ "aria-label": "Close" }}>
      {mint.data === undefined ? (
        <>
          A token that acts as this person for an hour. That you made it is written in the audit log.
          <Group justify="flex-end" mt="lg" gap="xs">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button loading={mint.isPending} onClick={() => mint.mutate()}>
              Make the token
            </Button>
          </Group>
        </>
      ) : (
        <>
          It is good for {Math.round(mint.data.expiresIn / 60)} minutes. This tab can become @{account.handle} with it;
          other tabs stay yours.
          <Group justify="flex-end" mt="lg" gap="xs">
            <CopyButton value={mint.data.accessToken}>
              {({ copied, copy }) => (
                <Button variant="default" onClick={copy}>
                  {copied ? "Copied" : "Copy the token"}
                </Button>
              )}
            </CopyButton>
            <Button onClick={() => actAs(mint.data.accessToken, mint.data.expiresIn)}>Act as @{account.handle}</Button>
          </Group>
        </>
      )}
    </Modal>
  );
}
