//! Traces follow a contact through every role by its W3C `traceparent`, which travels in
//! messages and not in gRPC metadata: the streams are long-lived and carry many contacts.
//!
//! A span is made only for a contact whose traceparent is sampled, in a process that
//! exports; for all others it costs a flag and a few comparisons.

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::telemetry;

/// Length of a traceparent: "00-" 32 "-" 16 "-" 2.
const LENGTH: usize = 55;

/// A span of `role` named `name`, child of the remote span that `traceparent` names.
/// `Span::none()` when the contact is not traced or nothing is exported.
#[must_use]
pub fn span(role: &'static str, name: &'static str, traceparent: &str) -> Span {
    if !telemetry::exporting() {
        return Span::none();
    }
    match parse(traceparent) {
        Some(parent) if parent.is_sampled() => {
            let span = tracing::info_span!(
                target: "trunkline_trace",
                "trunkline",
                otel.name = name,
                trunkline.role = role
            );
            let context = opentelemetry::Context::new().with_remote_span_context(parent);
            // Fails only where no exporting layer is installed; then there is no trace to join.
            let _ = span.set_parent(context);
            span
        }
        _ => Span::none(),
    }
}

/// What to pass on: the span's own context, or what came in when there is no span, so that
/// a role that exports nothing does not cut the trace.
#[must_use]
pub fn forward(span: &Span, incoming: &str) -> String {
    let outgoing = traceparent(span);
    if outgoing.is_empty() {
        incoming.to_owned()
    } else {
        outgoing
    }
}

/// The span's context as a traceparent; empty if it has none.
#[must_use]
pub fn traceparent(span: &Span) -> String {
    if span.is_none() {
        return String::new();
    }
    let context = span.context();
    let span_context = context.span().span_context().clone();
    if span_context.is_valid() {
        format(&span_context)
    } else {
        String::new()
    }
}

/// A new trace, sampled with probability `sample_ratio` (0 to 1).
#[must_use]
pub fn new_traceparent(sample_ratio: f64) -> String {
    let sampled = sample_ratio > 0.0 && rand::random::<f64>() < sample_ratio;
    format!(
        "00-{:032x}-{:016x}-{:02x}",
        rand::random::<u128>() | 1,
        rand::random::<u64>() | 1,
        u8::from(sampled)
    )
}

/// Whether this is a well-formed traceparent of version 00.
#[must_use]
pub fn is_valid(traceparent: &str) -> bool {
    parse(traceparent).is_some()
}

fn format(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8() & 1
    )
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let bytes = traceparent.as_bytes();
    if bytes.len() != LENGTH || !traceparent.is_ascii() || !traceparent.starts_with("00-") {
        return None;
    }
    if bytes[35] != b'-' || bytes[52] != b'-' {
        return None;
    }
    let trace = TraceId::from_hex(&traceparent[3..35]).ok()?;
    let span = SpanId::from_hex(&traceparent[36..52]).ok()?;
    let flags = u8::from_str_radix(&traceparent[53..55], 16).ok()?;
    let context = SpanContext::new(
        trace,
        span,
        TraceFlags::new(flags & 1),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_traceparent_is_valid_and_sampled_as_asked() {
        let always = new_traceparent(1.0);
        assert!(is_valid(&always), "{always}");
        assert!(always.ends_with("-01"));
        assert!(new_traceparent(0.0).ends_with("-00"));
    }

    #[test]
    fn nonsense_is_no_traceparent() {
        for text in [
            "",
            "00-",
            "00-00000000000000000000000000000000-0000000000000000-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00-0af7651916cd43dd8448eb211c80319cxb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cé7ad6b7169203331-01",
        ] {
            assert!(!is_valid(text), "{text}");
        }
        assert!(is_valid(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
    }

    #[test]
    fn without_an_exporter_the_incoming_context_is_passed_on() {
        let incoming = new_traceparent(1.0);
        let span = span("gateway", "route request", &incoming);
        assert_eq!(forward(&span, &incoming), incoming);
    }
}
