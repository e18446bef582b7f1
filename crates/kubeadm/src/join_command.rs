//! The command by which others join, and what `init` and `join` say when they are done, in upstream's words (`cmd/util/join.go`, `showjoincommand.go`, `cmd/join.go`).

use crate::error::Error;
use crate::host::KUBERNETES_FOLDER;

/// How further control planes get what they share with the first.
#[derive(Clone)]
pub enum Shared {
    /// There can be only one.
    Nothing,
    /// Files are copied by hand.
    ByHand,
    /// They are uploaded, under this key.
    Uploaded(String),
}

/// `kubeadm join …` in two lines, as upstream prints it.
pub fn worker(endpoint: &str, token: &str, ca: &str) -> Result<String, Error> {
    let hashes = pki::public_key_hash(ca.as_bytes()).map_err(|error| Error::Certificate { path: "the cluster's CA".into(), message: error.to_string() })?;
    let hashes: String = hashes.iter().map(|hash| format!("--discovery-token-ca-cert-hash {hash} ")).collect();
    Ok(format!("kubeadm join {endpoint} --token {token} \\\n\t{hashes}"))
}

/// The same for a further control plane, in three.
pub fn control_plane(worker: &str, key: Option<&str>) -> String {
    let key = key.map(|key| format!("--certificate-key {key}")).unwrap_or_default();
    format!("{worker}\\\n\t--control-plane {key}")
}

/// In one line.
pub fn one_line(command: &str) -> String {
    command.replace("\\\n\t", "")
}

pub fn initialized(worker: &str, shared: &Shared, no_network: bool) -> String {
    let more = match shared {
        Shared::Nothing => String::new(),
        Shared::Uploaded(key) => format!(
            "You can now join any number of control-plane nodes running the following command on each as root:\n\n  {}\n\nPlease note that the certificate-key gives access to cluster sensitive data, keep it secret!\nAs a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use\n\"kubeadm init phase upload-certs --upload-certs\" to reload certs afterward.\n\n",
            control_plane(worker, Some(key))
        ),
        Shared::ByHand => format!(
            "You can now join any number of control-plane nodes by copying certificate authorities\nand service account keys on each node and then running the following as root:\n\n  {}\n\n",
            control_plane(worker, None)
        ),
    };
    let mut text = format!(
        "\nYour Kubernetes control-plane has initialized successfully!\n\nTo start using your cluster, you need to run the following as a regular user:\n\n  mkdir -p $HOME/.kube\n  sudo cp -i {KUBERNETES_FOLDER}/admin.conf $HOME/.kube/config\n  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\nAlternatively, if you are the root user, you can run:\n\n  export KUBECONFIG={KUBERNETES_FOLDER}/admin.conf\n\nYou should now deploy a pod network to the cluster.\nRun \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:\n  https://kubernetes.io/docs/concepts/cluster-administration/addons/\n\n{more}Then you can join any number of worker nodes by running the following on each as root:\n\n{worker}\n"
    );
    text.push_str(match no_network {
        false => "hint: the built-in pod network runs already; nothing needs to be deployed.\n",
        true => "hint: nodes stay NotReady until there is one. The built-in one: coracle network manifest | kubectl apply -f -\n",
    });
    text
}

pub const JOINED: &str = "\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was received.\n* The Kubelet was informed of the new secure connection details.\n\nRun 'kubectl get nodes' on the control-plane to see this node join the cluster.\n\n";

pub fn joined_control_plane() -> String {
    format!(
        "\nThis node has joined the cluster and a new control plane instance was created:\n\n* Certificate signing request was sent to apiserver and approval was received.\n* The Kubelet was informed of the new secure connection details.\n* Control plane label and taint were applied to the new node.\n* The Kubernetes control plane instances scaled up.\n\nTo start administering your cluster from this node, you need to run the following as a regular user:\n\n\tmkdir -p $HOME/.kube\n\tsudo cp -i {KUBERNETES_FOLDER}/admin.conf $HOME/.kube/config\n\tsudo chown $(id -u):$(id -g) $HOME/.kube/config\n\nRun 'kubectl get nodes' to see this node join the cluster.\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_people_look_for() {
        let ca = pki::Authority::generate("kubernetes", 1_800_000_000).unwrap().identity.certificate_pem;
        let command = worker("192.0.2.1:6443", "abcdef.0123456789abcdef", &ca).unwrap();
        let text = initialized(&command, &Shared::Nothing, true);
        for line in [
            "Your Kubernetes control-plane has initialized successfully!",
            "  mkdir -p $HOME/.kube",
            "  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config",
            "  sudo chown $(id -u):$(id -g) $HOME/.kube/config",
            "Then you can join any number of worker nodes by running the following on each as root:",
            "kubeadm join 192.0.2.1:6443 --token abcdef.0123456789abcdef \\",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("\n\t--discovery-token-ca-cert-hash sha256:") && text.contains("hint: nodes stay NotReady") && text.ends_with("coracle network manifest | kubectl apply -f -\n") && !text.contains("--control-plane "));
        let text = initialized(&command, &Shared::Uploaded("00ff".into()), false);
        assert!(text.contains("  kubeadm join 192.0.2.1:6443 ") && text.contains(" \\\n\t--control-plane --certificate-key 00ff\n") && text.contains("hint: "), "{text}");
        assert!(initialized(&command, &Shared::ByHand, false).contains("by copying certificate authorities\nand service account keys"));
        let line = one_line(&control_plane(&command, None));
        assert!(!line.contains('\n') && line.starts_with("kubeadm join ") && line.ends_with(" --control-plane "), "{line}");
    }
}
