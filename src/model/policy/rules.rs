//! What a route does with its requests beside sending them to a pool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::traffic::HashKey;
use crate::model::secret::Secret;
use crate::model::template::{Placeholder, Template};

/// The rules of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRules {
    /// The start of the path that is taken off: a path without a slash at its end, with which every request of the route
    /// begins. `None`: the path stays.
    pub strip_prefix: Option<Arc<str>>,
    /// The path to send upstream. A query in it replaces that of the request.
    pub rewrite: Option<Template>,
    /// Changes to the fields of requests.
    pub request: FieldEdits,
    /// Changes to the fields of final responses; `set` is for our own as well.
    pub response: FieldEdits,
    /// Over the whole request, instead of the pool's; `Some(None)`: without limit.
    pub timeout: Option<Option<Duration>>,
    /// The answer, for a route without a pool.
    pub answer: Option<FixedAnswer>,
    /// How many requests it lets through.
    pub rate_limit: Option<RateLimit>,
}

impl RouteRules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == RouteRules::default()
    }

    /// Whether one of its texts names this part of a request.
    pub fn names(&self, part: Placeholder) -> bool {
        let of_fields = [&self.request, &self.response].into_iter().flat_map(|edits| &edits.set);
        let of_fields = of_fields.filter_map(|(_, value)| value.template());
        let of_answer: Vec<&Template> = match &self.answer {
            None => Vec::new(),
            Some(FixedAnswer::Redirect { to, .. }) => vec![to],
            Some(FixedAnswer::Respond { body, fields, .. }) => {
                fields.iter().map(|(_, value)| value).chain([body]).collect()
            }
        };
        self.rewrite.iter().chain(of_fields).chain(of_answer).any(|template| template.names(part))
    }
}

/// The answer of a route that has no pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixedAnswer {
    /// To another place.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The place: a path, or an absolute URI. The query of the request is added, unless it has one.
        to: Template,
    },
    /// Always the same.
    Respond {
        /// 200 to 599.
        status: u16,
        /// Empty with a status that has no body.
        body: Template,
        /// Its fields but those that frame it.
        fields: Vec<(Arc<str>, Template)>,
    },
}

/// Changes to the fields of a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Fields that replace every field of their name.
    pub set: Vec<(Arc<str>, FieldText)>,
    /// Names of fields that are taken out.
    pub remove: Vec<Arc<str>>,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldText {
    /// As written.
    Template(Template),
    /// From a file or the environment; never shown.
    Secret(Secret),
}

impl FieldText {
    /// The text, unless it is a secret.
    pub fn template(&self) -> Option<&Template> {
        match self {
            FieldText::Template(template) => Some(template),
            FieldText::Secret(_) => None,
        }
    }
}

/// `rate_limit`: a token bucket for each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// How many requests a key may make in `per`: 1 to 1,000,000.
    pub requests: u32,
    /// 1 s to 24 h.
    pub per: Duration,
    /// How many of them at once: at least 1.
    pub burst: u32,
    /// What requests are counted by. One without it is not counted.
    pub key: HashKey,
}

/// `100 in 1s by client_ip, 200 at once`.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateLimit { requests, per, burst, key } = self;
        write!(f, "{requests} in {} by {key}, {burst} at once", crate::model::written::show_duration(*per))
    }
}
