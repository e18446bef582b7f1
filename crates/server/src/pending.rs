//! Temporary.
pub mod patch {
    use serde_json::Value;
    pub struct Manager { pub name: String, pub api_version: String, pub now: String, pub subresource: String }
    pub struct PatchError;
    impl PatchError { pub fn status(self, _: &str, _: &str, _: &str) -> ::api::Status { ::api::Status::internal("x") } }
    pub fn json(_: &mut Value, _: &Value) -> Result<(), PatchError> { Ok(()) }
    pub fn merge(_: &mut Value, _: &Value) { }
    pub fn strategic(_: &mut Value, _: &Value, _: Option<&::api::schema::TypeInfo>) -> Result<(), PatchError> { Ok(()) }
    pub fn apply(_: &mut Value, _: &Value, _: Option<&::api::schema::TypeInfo>, _: &Manager, _: bool) -> Result<(), PatchError> { Ok(()) }
}
pub mod discovery {
    use serde_json::Value; use std::sync::Arc; use ::api::Resource;
    pub fn aggregated_core(_: &[Arc<Resource>]) -> Value { Value::Null }
    pub fn aggregated_apis(_: &[Arc<Resource>]) -> Value { Value::Null }
    pub fn core_versions(_: &str) -> Value { Value::Null }
    pub fn group_list(_: &[Arc<Resource>]) -> Value { Value::Null }
    pub fn group(_: &[Arc<Resource>], _: &str) -> Option<Value> { None }
    pub fn resource_list(_: &[Arc<Resource>], _: &str, _: &str) -> Option<Value> { None }
}
