# In a lab: a shell on node1, and the control plane.
[ "$(hostname)" = node1 ] && [ "$(hostname -i)" = 192.168.0.11 ] && [ "$PWD" = /root ] && [ "$(id -un)" = root ]
[ "$(bash --login -ic 'echo "${PS1@P}"' 2>/dev/null | tail -1)" = '[node1 ~]$ ' ]
for tool in bash ls curl jq docker docker-compose kubectl kubeadm ip hostname base64; do command -v $tool >/dev/null || { echo "no $tool"; break; }; done; command -v base64 && command -v kubeadm | shows /usr/local/bin/kubeadm
! kubectl get nodes 2>$TMP/e && grep -q 'refused' $TMP/e
kubeadm init --apiserver-advertise-address $(hostname -i) >$TMP/init.log
grep -q 'Your Kubernetes control-plane has initialized successfully!' $TMP/init.log
JOIN=$(grep -A1 '^kubeadm join' $TMP/init.log | tr -d '\\\n' | tr -s ' \t' ' ')
echo "$JOIN" | shows -E '^kubeadm join 192.168.0.11:6443 --token [a-z0-9]{6}\.[a-z0-9]{16} --discovery-token-ca-cert-hash sha256:[0-9a-f]{64} ?$'
[ -s /etc/kubernetes/admin.conf ] && kubectl get nodes | shows '^node1 '
# A second time: refused, and nothing is broken by it.
! kubeadm init >$TMP/e 2>&1 && kubectl get nodes | shows '^node1 '
