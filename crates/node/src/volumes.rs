//! The volumes of the pods on this node.

use api::k8s::api::core::v1::Container;
use sandbox::cri::Mount;

use crate::cx::Cx;

#[derive(Default)]
pub struct Volumes {}

impl Volumes {
    pub fn new() -> Self {
        Self::default()
    }

    pub async fn ensure(&self, _cx: &Cx) -> Result<(), Vec<String>> {
        Ok(())
    }

    pub async fn mounts(&self, _cx: &Cx, _container: &Container, _env: &[(String, String)]) -> Result<Vec<Mount>, String> {
        Ok(Vec::new())
    }

    pub async fn tear_down(&self, _uid: &str) {}
}
