/**
 * What the server says, by the names of its OpenAPI document. The types are generated from it (`npm run api`); here
 * stand only the short names for them.
 */
import type { components } from "./schema";

type Schemas = components["schemas"];

/** A page of a list; `next` asks for the one after it. */
export interface Page<T> {
  items: T[];
  next?: string | null;
}

export type Account = Schemas["Account"];
export type ListedAccount = Schemas["ListedAccount"];
export type Me = Schemas["Me"];
export type Tokens = Schemas["Tokens"];
export type Session = Schemas["Session"];
export type ApiKey = Schemas["ApiKey"];
export type CreatedApiKey = Schemas["CreatedApiKey"];
export type Role = Schemas["Role"];
export type AuditEntry = Schemas["AuditEntry"];
export type MintedToken = Schemas["MintedToken"];

export type Author = Schemas["Author"];
export type PersonItem = Schemas["PersonItem"];
export type Post = Schemas["Post"];
export type HomePost = Schemas["HomePost"];
export type HomePage = Schemas["HomePage"];
export type Explanation = Schemas["Explanation"];
export type PostHistory = Schemas["PostHistory"];
export type PostThread = Schemas["PostThread"];
export type Profile = Schemas["Profile"];
export type Notification = Schemas["Notification"];
export type NotificationKind = Schemas["NotificationKind"];
export type NotificationPage = Schemas["NotificationPage"];
export type TrendList = Schemas["TrendList"];
export type TrendWindow = "1h" | "24h" | "7d";

export type FeedInspection = Schemas["FeedInspection"];
export type PostInspection = Schemas["PostInspection"];
export type HomeInspection = Schemas["HomeInspection"];
export type EntryInspection = Schemas["EntryInspection"];

export type Overview = Schemas["Overview"];
export type TraceSummary = Schemas["TraceSummary"];
export type Trace = Schemas["Trace"];
export type Span = Schemas["Span"];
export type DeadLetter = Schemas["DeadLetter"];
export type Rebuild = Schemas["Rebuild"];

export type Cluster = Schemas["ClusterOverview"];
export type ClusterNode = Schemas["NodeOverview"];
export type NodeState = Schemas["NodeState"];
export type Leader = Schemas["LeaderOverview"];
export type Shards = Schemas["Shards"];
export type Shard = Schemas["Shard"];
export type Move = Schemas["Move"];
export type ChaosPart = Schemas["ChaosPart"];
export type ChaosAction = Schemas["ChaosAction"];
export type ChaosKind = Schemas["ChaosKind"];
