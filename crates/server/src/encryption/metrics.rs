//! What encryption at rest counts of itself, by upstream's names (storage/value/metrics.go, envelope/metrics, encryptionconfig/metrics).

use std::time::Duration;

use crate::metrics::{Counters, Gauges, Histograms, hash};
use crate::reload::ReloadMetrics;

/// From 5 µs, doubled 24 times.
const TRANSFORMATION: &[f64] = &[
    5e-6, 1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4, 6.4e-4, 1.28e-3, 2.56e-3, 5.12e-3, 0.01024, 0.02048, 0.04096, 0.08192, 0.16384, 0.32768, 0.65536, 1.31072, 2.62144, 5.24288, 10.48576, 20.97152,
    41.94304, 83.88608,
];
/// From 0.1 ms, doubled 19 times.
const OPERATION: &[f64] = &[
    1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144, 52.4288,
];

pub struct EncryptionMetrics {
    transformations: Counters,
    durations: Histograms,
    pub cache_misses: Counters,
    pub operations: Histograms,
    pub key_ids: Counters,
    pub key_ids_last: Gauges,
    pub status_key_ids: Gauges,
    pub invalid_key_ids: Counters,
    pub cached: Gauges,
    pub reloads: ReloadMetrics,
    /// Hash of who we are.
    pub server: String,
}

impl Default for EncryptionMetrics {
    fn default() -> Self {
        const KEY_LABELS: &[&str] = &["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];
        Self {
            transformations: Counters::new(
                "apiserver_storage_transformation_operations_total",
                "[ALPHA] Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails. The status, resource, and transformation_type fields can be used for alerting purposes. For example, you can monitor for encryption/decryption failures using the transformation_type (e.g., from_storage for decryption and to_storage for encryption). Additionally, these fields can be used to ensure that the correct transformers are applied to each resource.",
                &["resource", "transformation_type", "transformer_prefix", "status"],
            ),
            durations: Histograms::new("apiserver_storage_transformation_duration_seconds", "[ALPHA] Latencies in seconds of value transformation operations.", &["transformation_type", "transformer_prefix"], TRANSFORMATION),
            cache_misses: Counters::new("apiserver_storage_envelope_transformation_cache_misses_total", "[ALPHA] Total number of cache misses while accessing key decryption key(KEK).", &[]),
            operations: Histograms::new("apiserver_envelope_encryption_kms_operations_latency_seconds", "[ALPHA] KMS operation duration with gRPC error code status total.", &["provider_name", "method_name", "grpc_status_code"], OPERATION),
            key_ids: Counters::new("apiserver_envelope_encryption_key_id_hash_total", "[ALPHA] Number of times a keyID is used split by transformation type, provider, and apiserver identity.", KEY_LABELS),
            key_ids_last: Gauges::new("apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds", "[ALPHA] The last time in seconds when a keyID was used.", KEY_LABELS),
            status_key_ids: Gauges::new("apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds", "[ALPHA] The last time in seconds when a keyID was returned by the Status RPC call.", &["provider_name", "key_id_hash", "apiserver_id_hash"]),
            invalid_key_ids: Counters::new("apiserver_envelope_encryption_invalid_key_id_from_status_total", "[ALPHA] Number of times an invalid keyID is returned by the Status RPC call split by error.", &["provider_name", "error"]),
            cached: Gauges::new("apiserver_envelope_encryption_dek_source_cache_size", "[ALPHA] Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.", &["provider_name"]),
            reloads: ReloadMetrics::encryption(),
            server: hash(crate::reload::SERVER.as_bytes()),
        }
    }
}

impl EncryptionMetrics {
    pub fn transformed(&self, resource: &str, direction: &str, prefix: &str, took: Duration, went_well: bool) {
        self.transformations.add(&[resource, direction, prefix, if went_well { "OK" } else { "unknown-non-grpc" }], 1);
        if went_well {
            self.durations.observe(&[direction, prefix], took.as_secs_f64());
        }
    }

    pub fn text(&self, out: &mut String) {
        self.transformations.text(out);
        self.durations.text(out);
        self.cache_misses.text(out);
        self.operations.text(out);
        self.key_ids.text(out);
        self.key_ids_last.text(out);
        self.status_key_ids.text(out);
        self.invalid_key_ids.text(out);
        self.cached.text(out);
        self.reloads.text(out);
    }
}
