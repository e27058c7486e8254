/** What the server says, by the names that its OpenAPI document gives. */

export interface Account {
  id: string;
  handle: string;
  name: string;
  bio: string;
  created: string;
}

export interface Me extends Account {
  roles: string[];
  permissions: string[];
  tenant: string;
}

export interface Tokens {
  accessToken: string;
  refreshToken: string;
  tokenType: string;
  /** Seconds. */
  expiresIn: number;
  account: Account;
}

export interface Session {
  id: string;
  created: string;
  lastUsed: string;
  expires: string;
  userAgent?: string;
  address?: string;
  current: boolean;
}

export interface ApiKey {
  id: string;
  name: string;
  scopes: string[];
  created: string;
  lastUsed?: string;
  prefix: string;
}

export interface NewApiKey extends ApiKey {
  key: string;
}

export interface AccountWithRoles extends Account {
  roles: string[];
}

export interface Role {
  name: string;
  permissions: string[];
}

export interface AuditEntry {
  id: string;
  time: string;
  actor: string;
  action: string;
  subject: string;
  detail: string;
  address?: string;
}

export interface MintedToken {
  accessToken: string;
  expiresIn: number;
}

export interface Author {
  id: string;
  handle: string;
  name: string;
}

export interface FollowEntry extends Author {
  following?: boolean;
}

export interface Post {
  id: string;
  author: Author;
  text: string;
  created: string;
  edited?: string;
  kind: "post" | "reply" | "repost" | "quote";
  replyTo?: string;
  repostOf?: Post;
  quoteOf?: Post;
  quoteGone?: boolean;
  hashtags: string[];
  mentions: { id: string; handle: string }[];
  counts: { likes: number; reposts: number; replies: number; quotes: number };
  viewer?: { liked: boolean; reposted: boolean; bookmarked: boolean };
}

export interface Feature {
  name: string;
  value: number;
  weight: number;
  /** Part of the score, 0 to 1. */
  share: number;
}

export interface Explain {
  score: number;
  features: Feature[];
  source: string;
}

export type HomeItem = Post & { explain?: Explain };

export interface Page<T> {
  items: T[];
  next?: string;
}

export interface HomePage extends Page<HomeItem> {
  since?: string;
}

export interface PostVersion {
  text: string;
  at: string;
}

export interface Thread {
  ancestors: Post[];
  post: Post;
  replies: Post[];
  next?: string;
}

export interface Profile {
  id: string;
  handle: string;
  name: string;
  bio: string;
  created: string;
  counts: { posts: number; followers: number; following: number };
  viewer?: {
    following: boolean;
    followedBy: boolean;
    blocking: boolean;
    blockedBy: boolean;
    muting: boolean;
  };
}

export type NotificationKind = "follow" | "like" | "mention" | "reply" | "repost" | "quote";

export interface Notification {
  id: string;
  kind: NotificationKind;
  time: string;
  actor: Author;
  post?: Post;
  read: boolean;
}

export interface NotificationPage extends Page<Notification> {
  unread: number;
}

export interface Trend {
  tag: string;
  score: number;
  posts: number;
}

export interface Trends {
  items: Trend[];
  asOf: string;
}

export type TrendWindow = "1h" | "24h" | "7d";

// The inside of feed.

export interface PartitionInspect {
  partition: number;
  head: number;
  committed: number;
  lag: number;
}

export interface FeedConsumer {
  group: string;
  topic: string;
  lag: number;
  partitions: PartitionInspect[];
}

export interface FeedInspect {
  tiers: { pushBelow: number; activeBelow: number; activeDays: number };
  timelineEntries: number;
  consumers: FeedConsumer[];
  authorsByTier: { push: number; active: number; pull: number };
  caches: Record<string, unknown>;
  fanout: { postsHandled: number; entriesWritten: number; perSecond: number };
}

export interface PostInspect {
  post: Post;
  tier: "push" | "active" | "pull";
  followers: number;
  pushed: number;
  pending: boolean;
  position?: { partition: number; offset: number };
  groupAt?: number;
  sample: { handle: string; present: boolean }[];
}

export interface TimelineEntryInspect {
  id: string;
  author: string;
  source: "pushed" | "pulled" | "own";
  rank?: number;
  score?: number;
  hidden?: "unfollowed" | "blocked" | "muted" | "deleted";
}

export interface UserHomeInspect {
  floor?: string;
  entries: TimelineEntryInspect[];
  follows: number;
  pulledAuthors: number;
}

// The inside of the node.

export interface SystemOverview {
  name: string;
  summary: string;
  ready: boolean;
  detail: string;
  requestsPerSecond: number;
  /** 0 to 1. */
  errorRate: number;
  p50Ms: number;
  p99Ms: number;
}

export interface ConsumerOverview {
  group: string;
  topic: string;
  lag: number;
  oldestSeconds: number;
  deadLetters: number;
}

export interface StoreOverview {
  failure?: string;
  diskBytes: number;
  freeBytes: number;
  commitsPerSecond: number;
  commits: number;
  events: number;
  groupSize: number;
  groupMicros: number;
  queueDepth: number;
  cacheBytes: number;
  memtableBytes: number;
}

export interface Overview {
  version: string;
  started: string;
  uptimeSeconds: number;
  node: number;
  systems: SystemOverview[];
  consumers: ConsumerOverview[];
  store: StoreOverview;
  live: { rooms: number };
  memoryBytes: number;
}

export type TraceStatus = "ok" | "error";

export interface TraceSummary {
  traceId: string;
  name: string;
  start: string;
  durationMs: number;
  status: TraceStatus;
  spans: number;
}

export interface Span {
  id: string;
  parent?: string;
  name: string;
  kind: string;
  start: string;
  offsetMs: number;
  durationMs: number;
  status: TraceStatus;
  attributes: Record<string, string>;
}

export interface Trace {
  traceId: string;
  spans: Span[];
}

export interface DeadLetter {
  group: string;
  topic: string;
  number: number;
  event: string;
  kind: string;
  subject: string;
  time: string;
  error: string;
  attempts: number;
  buried: string;
}

export interface Rebuild {
  name: string;
  state: "idle" | "running" | "done" | "failed";
  detail: string;
}
