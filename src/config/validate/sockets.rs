//! Our own sockets: no two may take the same address, and no upstream may be one of them (a loop, or the admin exposed to
//! the traffic).

use crate::config::raw;
use crate::config::read::shown_key;
use crate::config::report::{Found, Report};
use crate::model::Address;
use crate::model::policy::{AdminPolicy, ListenerPolicy};

/// The addresses this process will listen on.
pub struct OwnSockets(Vec<(Address, String)>);

impl OwnSockets {
    /// Those of the listeners and of the admin, the default one included.
    pub fn new(_file: &raw::File, listeners: &[Option<ListenerPolicy>], admin: &Option<AdminPolicy>) -> OwnSockets {
        let listeners = listeners.iter().flatten();
        let mut own: Vec<_> = listeners.map(|l| (l.address.clone(), format!("the listener {:?}", l.name))).collect();
        own.extend(admin.iter().map(|a| match a.written {
            true => (a.address.clone(), "the admin".to_owned()),
            false => (a.address.clone(), "the admin (which [admin] can move)".to_owned()),
        }));
        OwnSockets(own)
    }

    /// Which of our sockets a connection to `dialled` would reach. A file does not show which other addresses
    /// this machine has: of `0.0.0.0` only the loopback is known to be ours.
    pub fn reached_by(&self, dialled: &Address) -> Option<&str> {
        self.0.iter().find(|(own, _)| own.is_reached_by(dialled)).map(|(_, name)| name.as_str())
    }
}

/// Refuses listeners that take each other's address, and an admin that shares one with a listener.
pub fn refuse_overlaps(
    file: &raw::File,
    listeners: &[Option<ListenerPolicy>],
    admin: &Option<AdminPolicy>,
    report: &mut Report,
) {
    let raws = file.listeners.value().map_or(&[][..], |by_name| &by_name.0);
    let spans: Vec<_> = raws.iter().map(|(_, raw)| raw.as_ref().and_then(|raw| raw.value.address.get())).collect();
    for (index, listener) in listeners.iter().enumerate() {
        let (Some(listener), Some(at)) = (listener, spans[index]) else { continue };
        let key = format!("listeners.{}.address", shown_key(listener.name.as_str()));
        let earlier = listeners[..index].iter().flatten().find(|other| overlap(&other.address, &listener.address));
        if let Some(other) = earlier {
            let message = format!("{} is taken by the listener {:?} on {}", at.value.0, other.name, other.address);
            report.add(Found::error(at.span.clone(), &key, message));
        }
        let Some(admin) = admin.as_ref().filter(|admin| overlap(&admin.address, &listener.address)) else { continue };
        if !admin.written {
            let message = format!("the admin cannot listen on its default {}, so it will be missing", admin.address);
            report
                .add(Found::warning(at.span.clone(), &key, message).expected("an [admin] table with another address"));
            continue;
        }
        let message = format!("the admin and the listener {:?} both take {}", listener.name, admin.address);
        match file.admin.value().and_then(|raw| raw.address.get()) {
            Some(at) => report.add(Found::error(at.span.clone(), "admin.address", message)),
            None => report.add(Found::error(at.span.clone(), key, message)),
        }
    }
}

/// Whether two sockets cannot listen at once.
pub fn overlap(first: &Address, second: &Address) -> bool {
    first.covers(second) || second.covers(first)
}
