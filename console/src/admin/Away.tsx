import { Anchor } from "@mantine/core";
import { sentence } from "../api/problem";
import classes from "./Admin.module.css";

/** Says that the node which serves this page is silent, and where others are. */
export function Away({ error, addresses }: { error: unknown; addresses: (string | null | undefined)[] }) {
  const known = addresses.filter((address) => typeof address === "string");
  return (
    <div className={classes.notice} data-bad role="alert">
      <strong>This node does not answer as it should.</strong> {sentence(error)} What you see is what it said last; it is
      asked again every few seconds.
      {known.length > 0 && (
        <>
          {" "}
          Other nodes:{" "}
          {known.map((address, index) => (
            <span key={address}>
              {index > 0 && ", "}
              <Anchor underline="always" href={`${window.location.protocol}//${address}${window.location.pathname}`}>{address}</Anchor>
            </span>
          ))}
        </>
      )}
    </div>
  );
}
