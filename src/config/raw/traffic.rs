//! The keys of how requests travel: what clients of a listener may do, and what is expected of a pool's upstreams.

use crate::config::read::List;
use crate::config::table::table;
use crate::config::values::{Count, DAY, OneOf, Share, Size, SizeLimit, Span};
use crate::model::policy::Failure;

table! {
    /// How long clients may take; a change holds from a connection's next request on.
    struct ClientTimeouts {
        /// For a whole request head, from its first byte (from accept for the first): then 408 and close.
        header ["header"]: Span<1_000, DAY> = "10s";
        /// Between the end of a response and the next request: then the connection closes.
        keep_alive ["keep_alive"]: Span<1_000, DAY> = "75s";
        /// Between two reads of a request body (408), and between two writes to a client that does not read.
        body_idle ["body_idle"]: Span<1_000, DAY> = "60s";
    }
    later []
}

table! {
    /// How large requests and how many connections may be. A change holds from a connection's next request on; that of `connections` and `connections_per_client` for new connections.
    struct ClientLimits {
        /// A request head, with its empty line: beyond it 431.
        header_bytes ["header_bytes"]: Size<1_024, 65_536> = "32KiB";
        /// The fields of a request head: beyond it 431.
        headers ["headers"]: Count<1, 1_000> = 100;
        /// A request target: beyond it 414.
        target_bytes ["target_bytes"]: Size<64, 65_536> = "16KiB";
        /// A request body, without its framing: beyond it 413.
        body_bytes ["body_bytes"]: SizeLimit = "unlimited";
        /// The open connections of this listener: at the limit no other is accepted; 0: as many as file descriptors allow, less a reserve for checks and the admin API.
        connections ["connections"]: Count<0, { u32::MAX as i64 }> = 0;
        /// The open connections of one client address: another one is closed at once; 0: any number.
        connections_per_client ["connections_per_client"]: Count<0, { u32::MAX as i64 }> = 0;
        /// The requests of one connection: the answer to the last one closes it; 0: any number.
        requests_per_connection ["requests_per_connection"]: Count<0, { u32::MAX as i64 }> = 0;
    }
    later []
}

table! {
    /// How long upstreams may take.
    struct UpstreamTimeouts {
        /// To connect: then the request is sent to another upstream, or 504.
        connect ["connect"]: Span<10, DAY> = "2s";
        /// From the last byte of a request until the whole response head is there: then 504.
        first_byte ["first_byte"]: Span<1_000, DAY> = "60s";
        /// Between two reads of a response body, and between two writes of a request body (504).
        idle ["idle"]: Span<1_000, DAY> = "60s";
        /// Over a whole request, retries and waits included: then 504; "0s": no limit.
        request ["request"]: Span<0, DAY> = "0s";
        /// For a tunnel without a byte in either direction.
        tunnel_idle ["tunnel_idle"]: Span<1_000, DAY> = "1h";
    }
    later []
}

table! {
    /// The connections to each upstream, and how many requests it may have at once.
    struct Connections {
        /// Requests in flight at each upstream: beyond it another upstream, else the queue; 0: no limit.
        max_per_upstream ["max_per_upstream"]: Count<0, 1_000_000> = 0;
        /// The requests that wait for a free place.
        queue ["queue"]: Queue;
        /// Idle ones that are kept; 0 keeps none.
        idle_per_upstream ["idle_per_upstream"]: Count<0, 65_535> = 128;
        /// How long an idle one is kept; shorter than what the upstream keeps, which is 5 s for many.
        idle_timeout ["idle_timeout"]: Span<0, DAY> = "4s";
    }
    later []
}

table! {
    /// Requests that wait for an upstream with a free place, first in, first out.
    struct Queue {
        /// How many wait at most: beyond it 503.
        length ["length"]: Count<0, 1_000_000> = 0;
        /// How long each waits: then 503.
        timeout ["timeout"]: Span<1, DAY> = "1s";
    }
    later []
}

table! {
    /// Which requests are sent again after a failure.
    struct Retry {
        /// How often at most; each time to an upstream that the request has not tried, while one is eligible.
        retries ["retries"]: Count<0, 10> = 1;
        /// After which failures: "connect", "reset" (before a whole response head), "timeout", or a status: "502", "503", "504".
        on ["on"]: List<OneOf<Failure>, 6> = ["connect", "reset"];
        /// Whether methods that are not idempotent, such as POST, are sent again too, although they may be carried out twice.
        non_idempotent ["non_idempotent"]: bool = false;
        /// How many retries there may be in ten seconds; those after a failed connect are free.
        budget ["budget"]: Budget;
    }
    later []
}

table! {
    /// Ejection by live traffic: an upstream whose requests fail gets none for a while, if enough others can serve.
    struct Passive {
        /// So many failures in a row eject; 0 turns it off.
        consecutive_failures ["consecutive_failures"]: Count<0, 1_000> = 5;
        /// What counts: "connect", "reset" (before a whole response head), "timeout", or a status: "502", "503", "504".
        failure ["failure"]: List<OneOf<Failure>, 6> = ["connect", "reset", "timeout", "502", "503", "504"];
        /// For how long, and how many upstreams at once.
        ejection ["ejection"]: Ejection;
    }
    later []
}

table! {
    /// The length of ejections, and how many there may be at once.
    struct Ejection {
        /// How long the first lasts; the second takes twice as long, and so on.
        base ["base"]: Span<1_000, DAY> = "10s";
        /// The longest; and each such time without an ejection makes the next shorter by `base`.
        max ["max"]: Span<1_000, DAY> = "5m";
        /// The largest share of the primaries that may be ejected, rounded down; of two or more one always may.
        max_share ["max_share"]: Share<100> = 0.5;
    }
    later []
}

table! {
    /// How many retries a pool may make.
    struct Budget {
        /// A share of the requests of the last ten seconds.
        share ["share"]: Share<100> = 0.2;
        /// And so many more each second.
        min_per_second ["min_per_second"]: Count<0, 100_000> = 10;
    }
    later []
}
