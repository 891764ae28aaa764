//! The keys of a route: which requests it is for, and what becomes of them.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Name, PoolRef};
use crate::config::read::{List, Node, Reader, Value};
use crate::config::table::table;
use crate::config::values::balance::HashBy;
use crate::config::values::conditions::{CookieConditions, HeaderConditions, QueryConditions};
use crate::config::values::fields::{RequestFieldName, RequestFields, ResponseFieldName, ResponseFields};
use crate::config::values::http::Method;
use crate::config::values::route::RoutePath;
use crate::config::values::template::{BodyTemplate, PathTemplate, PlaceTemplate};
use crate::config::values::{Count, DAY, Span};
use crate::model::policy::HostPattern;

table! {
    /// One route: requests that meet every condition go to its pool.
    struct Route {
        /// The host, such as "api.example.com" or "*.example.com"; default: every host.
        host ["host"]: HostPattern;
        /// A path and everything below it, on segment boundaries: "/v1" matches /v1 and /v1/x, not /v10.
        path ["path"]: RoutePath = "/";
        /// Exactly this path, instead of `path`.
        path_exact ["path_exact"]: RoutePath;
        /// The methods; default: all.
        method ["method"]: List<Method, 64>;
        /// The name of a listener; default: all.
        listener ["listener"]: Name;
        /// Fields that its requests have: name = "value", or name = { present = true } for any value.
        header ["header"]: HeaderConditions;
        /// The same of the query, such as { v = "2" } for ?v=2.
        query ["query"]: QueryConditions;
        /// The same of cookies.
        cookie ["cookie"]: CookieConditions;
        /// The pool of these requests, or several with weights: [{ name = "stable", weight = 95 }, { name = "canary", weight = 5 }].
        pool ["pool"]: PoolShares;
        /// Instead of a pool: where clients are sent.
        redirect ["redirect"]: Redirect;
        /// Instead of a pool: an answer that is always the same.
        respond ["respond"]: Respond;
        /// The start of the path that upstreams do not see: `path` or a part of it.
        strip_prefix ["strip_prefix"]: RoutePath;
        /// The path that upstreams see, such as "/v2{path}"; the query stays unless this has one.
        rewrite ["rewrite"]: PathTemplate;
        /// Fields that requests get, instead of any of the same name.
        set_request_headers ["set_request_headers"]: RequestFields;
        /// Fields that upstreams do not get.
        remove_request_headers ["remove_request_headers"]: List<RequestFieldName, 64>;
        /// Fields that responses get, instead of any of the same name; responses that roundsman makes itself get them too.
        set_response_headers ["set_response_headers"]: ResponseFields;
        /// Fields of upstreams that clients do not get.
        remove_response_headers ["remove_response_headers"]: List<ResponseFieldName, 64>;
        /// Over a whole request, instead of the pool's `timeouts.request`; "0s": no limit.
        timeout ["timeout"]: Span<0, DAY>;
        /// How many of its requests are let through: beyond it 429.
        rate_limit ["rate_limit"]: RateLimit;
    }
    later []
}

table! {
    /// Where clients are sent instead.
    struct Redirect {
        /// 301, 302, 303, 307 or 308.
        status ["status"]: Count<301, 308> = 302;
        /// A path or an http URI, such as "https://{host}{path}"; the query of the request is added, unless this has one.
        to ["to"]: PlaceTemplate;
    }
    required ["to"]
    later []
}

table! {
    /// An answer that is always the same.
    struct Respond {
        /// The status.
        status ["status"]: Count<200, 599> = 200;
        /// The body, up to 64 KiB; as text/plain, unless `headers` has a Content-Type.
        body ["body"]: BodyTemplate = "";
        /// Its fields.
        headers ["headers"]: ResponseFields;
    }
    later []
}

table! {
    /// How many requests each client may make.
    struct RateLimit {
        /// How many in the time `per`.
        requests ["requests"]: Count<1, 1_000_000>;
        /// In which time.
        per ["per"]: Span<1_000, DAY> = "1s";
        /// How many of them may come at once; default: `requests`.
        burst ["burst"]: Count<1, 1_000_000>;
        /// What requests are counted by: "client_ip", "path", "header:NAME" or "cookie:NAME". One without it is not counted.
        key ["key"]: HashBy = "client_ip";
    }
    required ["requests"]
    later []
}

table! {
    /// One of several pools that share the requests of a route.
    struct PoolShare {
        /// Its name.
        name ["name"]: PoolRef;
        /// Its part of the requests, in relation to the weights of the others; 0: none.
        weight ["weight"]: Count<0, 1_000_000>;
    }
    required ["name", "weight"]
    later []
}

/// The pool of a route, or several with weights.
#[derive(Debug, Clone)]
pub enum PoolShares {
    /// One.
    Whole(String),
    /// Several.
    Shared(List<PoolShare, 64>),
}

impl Value for PoolShares {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<PoolShares> {
        if matches!(node.get_ref(), DeValue::Array(_)) {
            return List::read(node, reader).map(PoolShares::Shared);
        }
        let what = "the name of a pool, in quotes, or [{ name = \"…\", weight = 1 }, …]";
        reader.string(node, what).map(PoolShares::Whole)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let several = List::<PoolShare, 64>::schema(generator);
        json_schema!({ "anyOf": [{ "type": "string" }, several] })
    }
}
