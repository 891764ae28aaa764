//! Wraps the prober: a name without an address cannot be probed, so this reports why instead. That is not a verdict,
//! and the upstream stays unknown.

use std::sync::Arc;
use std::time::Duration;

use super::Discovery;
use crate::model::{Code, ProbeReport};
use crate::pool::{ProbeFuture, ProbeJob, Prober};

/// Probes upstreams with an address, and reports of the others why they have none.
pub struct NamingProber {
    /// Makes the probes.
    pub inner: Arc<dyn Prober>,
    /// Knows the names.
    pub discovery: Arc<Discovery>,
}

impl Prober for NamingProber {
    fn probe(&self, job: ProbeJob) -> ProbeFuture {
        let Some(host) = job.check.upstream.host_name() else { return self.inner.probe(job) };
        let report = ProbeReport::new(Code::NoRes, Duration::ZERO, &self.discovery.problem(host));
        Box::pin(std::future::ready(Arc::new(report)))
    }
}
