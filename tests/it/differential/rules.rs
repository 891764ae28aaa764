//! What must hold in each lane, whatever the bytes are.

use super::answers::POISON;
use super::compare::{answers, leave_out_empty_chunks};
use super::run::Seen;

/// Every request at the origin is canonical and was answered; the client got whole responses, only the last may be cut, and
/// nothing that was not for it.
pub fn hold(seen: &Seen) -> Result<(), String> {
    if !seen.faults.is_empty() {
        return Err(format!("not canonical at the origin: {:?}", seen.faults));
    }
    let answers = answers(seen)?;
    if seen.client.windows(POISON.len()).any(|window| window == POISON.as_bytes()) {
        return Err("the client got bytes that came after a response".to_owned());
    }
    if let Some(cut) = answers.iter().rev().skip(1).find(|answer| !answer.whole) {
        return Err(format!("a response that is not whole, and another after it: {cut:?}"));
    }
    let finals = answers.iter().filter(|answer| answer.status >= 200).count() + usize::from(seen.was_left);
    // One that failed may have been sent again, in other chunks.
    let mut distinct = seen.requests.clone();
    distinct.iter_mut().for_each(leave_out_empty_chunks);
    distinct.dedup_by(|next, before| {
        let same = (&next.line, &next.fields, &next.body) == (&before.line, &before.fields, &before.body);
        same && next.connection != before.connection
    });
    if distinct.len() > finals {
        return Err(format!("the origin has {} requests, the client {finals} responses", distinct.len()));
    }
    Ok(())
}
