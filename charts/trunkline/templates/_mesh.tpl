{{/*
Who may call whom, said once. From it come both sides of every network policy: a role's egress to
the roles it calls, and a role's ingress from the roles that call it. deploy/checks/chart.py holds
the rendered policies against the design's table.
*/}}
{{- define "trunkline.mesh" -}}
gateway: {calls: [intent, routing, callback], stores: [], edge: switches}
intent: {calls: [], stores: []}
routing: {calls: [], stores: [routingRedis]}
callback: {calls: [routing], stores: [callbackRedis]}
outcomes: {calls: [], stores: [routingRedis, kafka], edge: readers}
{{- end -}}

{{/* A role's NetworkPolicy. Everything that is not named here is refused, both ways. */}}
{{- define "trunkline.networkPolicy" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $policy := $root.Values.networkPolicy -}}
{{- $mesh := include "trunkline.mesh" $root | fromYaml -}}
{{- $self := index $mesh $role -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "trunkline.roleName" . }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "trunkline.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- range $caller, $entry := $mesh }}
    {{- if has $role $entry.calls }}
    - from:
        - podSelector:
            matchLabels: {{- include "trunkline.selector" (dict "root" $root "role" $caller) | nindent 14 }}
      ports: [{protocol: TCP, port: grpc}]
    {{- end }}
    {{- end }}
    {{- if and (eq (toString $self.edge) "switches") $policy.switchCidrs }}
    # The switches, by address; by certificate once they are in.
    - from:
        {{- range $policy.switchCidrs }}
        - ipBlock: {cidr: {{ . | quote }}}
        {{- end }}
      ports: [{protocol: TCP, port: grpc}]
    {{- end }}
    {{- if and (eq (toString $self.edge) "readers") $policy.outcomesReaders }}
    # Who may read the measures.
    - from: {{- toYaml $policy.outcomesReaders | nindent 8 }}
      ports: [{protocol: TCP, port: grpc}]
    {{- end }}
    {{- if $policy.prometheus }}
    - from: {{- toYaml $policy.prometheus | nindent 8 }}
      ports: [{protocol: TCP, port: admin}]
    {{- end }}
  egress:
    - to: {{- toYaml $policy.dns | nindent 8 }}
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
    {{- range $self.calls }}
    - to:
        - podSelector:
            matchLabels: {{- include "trunkline.selector" (dict "root" $root "role" .) | nindent 14 }}
      ports: [{protocol: TCP, port: {{ include "trunkline.port.grpc" $root }}}]
    {{- end }}
    {{- range $self.stores }}
    {{- $store := index $policy . }}
    - to: {{- toYaml $store.peers | nindent 8 }}
      ports: [{protocol: TCP, port: {{ $store.port }}}]
    {{- end }}
    {{- if $root.Values.otlp.endpoint }}
    - to: {{- toYaml $policy.otlp.peers | nindent 8 }}
      ports: [{protocol: TCP, port: {{ $policy.otlp.port }}}]
    {{- end }}
{{- end -}}
