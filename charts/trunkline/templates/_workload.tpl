{{/*
Everything a role is made of: ServiceAccount, headless Service, workload, disruption budget,
autoscaler, network policy, ServiceMonitor. Argument:
  root  the root context
  role  gateway | intent | routing | callback | outcomes: also the command and the component
  env   the role's own variables, as YAML list items
Every role is a Deployment, those with state too: what must outlive a pod is in Redis or Kafka, and who
owns it is a lease there, not a pod's name. A StatefulSet would only slow the replacement of a lost node.
*/}}
{{- define "trunkline.workload" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $values := index $root.Values .role -}}
{{- $name := include "trunkline.roleName" . -}}
{{/* intent reads no policy: its topics are its model's. */}}
{{- $policy := and $root.Values.policy.documents (ne $role "intent") -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
# No role speaks to the API server.
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
spec:
  # Headless: a gRPC client sees every replica and balances itself. One virtual address would pin
  # each long-lived stream to whichever replica answered first.
  clusterIP: None
  {{- if ne $role "gateway" }}
  # A link says itself what its peer can do at the moment. A replica whose Redis is away is not ready,
  # but its links must stay, or every caller would have to find it again when Redis is back.
  publishNotReadyAddresses: true
  {{- end }}
  selector: {{- include "trunkline.selector" . | nindent 4 }}
  ports:
    - {name: grpc, port: {{ include "trunkline.port.grpc" $root }}, targetPort: grpc}
    - {name: admin, port: {{ include "trunkline.port.admin" $root }}, targetPort: admin}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
spec:
  {{- if not (and $values.autoscaling $values.autoscaling.enabled) }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "trunkline.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "trunkline.labels" . | nindent 8 }}
      annotations:
        {{- if and $root.Values.metrics.annotations (not $root.Values.metrics.serviceMonitor.enabled) }}
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ include "trunkline.port.admin" $root | quote }}
        prometheus.io/path: /metrics
        {{- end }}
        {{- if $policy }}
        # Policy is read at start: a changed document is a new pod.
        checksum/policy: {{ toJson $root.Values.policy.documents | sha256sum }}
        {{- end }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: {{ include "trunkline.graceSeconds" $values }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      # One machine's loss takes as few replicas of a role as can be.
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "trunkline.selector" $ | nindent 14 }}
        {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ $role }}
          image: {{ include "trunkline.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ $role }}]
          env: {{- include "trunkline.commonEnv" (merge (dict "policy" $policy) .) | nindent 12 }}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- range $values.extraEnv }}
            - {{- toYaml . | nindent 14 }}
            {{- end }}
          ports:
            - {name: grpc, containerPort: {{ include "trunkline.port.grpc" $root }}}
            - {name: admin, containerPort: {{ include "trunkline.port.admin" $root }}}
          # Alive is that the process answers; a store that is away is a matter of readiness, and a
          # restart would not bring it back.
          startupProbe:
            httpGet: {path: /live, port: admin}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /live, port: admin}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /ready, port: admin}
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 2
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            privileged: false
            readOnlyRootFilesystem: true
            runAsNonRoot: true
            capabilities: {drop: [ALL]}
          {{- if or $root.Values.tls.enabled $policy }}
          volumeMounts:
            {{- if $root.Values.tls.enabled }}
            - {name: tls, mountPath: /etc/trunkline/tls, readOnly: true}
            {{- end }}
            {{- if $policy }}
            - {name: policy, mountPath: /etc/trunkline/policy, readOnly: true}
            {{- end }}
          {{- end }}
      {{- if or $root.Values.tls.enabled $policy }}
      volumes:
        {{- if $root.Values.tls.enabled }}
        - name: tls
          secret:
            secretName: {{ include "trunkline.tlsSecret" . }}
            defaultMode: 0440
        {{- end }}
        {{- if $policy }}
        - name: policy
          configMap:
            name: {{ include "trunkline.fullname" $root }}-policy
        {{- end }}
      {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
spec:
  # One at a time, whatever the count: a drain must always be possible, and a second replica must be there.
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "trunkline.selector" . | nindent 6 }}
{{- if and $values.autoscaling $values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ $values.autoscaling.minReplicas }}
  maxReplicas: {{ $values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $values.autoscaling.cpuPercent }}}
  behavior:
    # Calls come in a rush at the opening hour and again after the break: up at once, down slowly,
    # since every replica that goes makes its switches reconnect.
    scaleUp:
      stabilizationWindowSeconds: 0
      policies: [{type: Percent, value: 100, periodSeconds: 15}]
    scaleDown:
      stabilizationWindowSeconds: 900
      policies: [{type: Pods, value: 1, periodSeconds: 120}]
{{- end }}
{{- if $root.Values.networkPolicy.enabled }}
---
{{ include "trunkline.networkPolicy" . }}
{{- end }}
{{- if $root.Values.metrics.serviceMonitor.enabled }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ $name }}
  labels: {{- include "trunkline.labels" . | nindent 4 }}
    {{- with $root.Values.metrics.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels: {{- include "trunkline.selector" . | nindent 6 }}
  endpoints:
    - port: admin
      path: /metrics
      interval: {{ $root.Values.metrics.serviceMonitor.interval }}
{{- end }}
{{- end -}}

{{- define "trunkline.tlsSecret" -}}
{{- default (printf "%s-tls" (include "trunkline.roleName" .)) (index .root.Values.tls.secrets .role) -}}
{{- end -}}

{{/* Variables that every role has. */}}
{{- define "trunkline.commonEnv" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .role -}}
- {name: TRUNKLINE_LISTEN, value: "0.0.0.0:{{ include "trunkline.port.grpc" $root }}"}
- {name: TRUNKLINE_ADMIN_LISTEN, value: "0.0.0.0:{{ include "trunkline.port.admin" $root }}"}
- name: TRUNKLINE_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- {name: TRUNKLINE_ADVERTISE, value: "$(POD_IP):{{ include "trunkline.port.grpc" $root }}"}
- {name: TRUNKLINE_LOG, value: {{ $root.Values.log | quote }}}
{{- with $root.Values.otlp.endpoint }}
- {name: TRUNKLINE_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
- {name: TRUNKLINE_DRAIN_DELAY_MS, value: {{ $values.drain.delayMs | int | quote }}}
- {name: TRUNKLINE_DRAIN_TIMEOUT_MS, value: {{ $values.drain.timeoutMs | int | quote }}}
{{- if $root.Values.tls.enabled }}
- {name: TRUNKLINE_TLS_CERT, value: /etc/trunkline/tls/tls.crt}
- {name: TRUNKLINE_TLS_KEY, value: /etc/trunkline/tls/tls.key}
- {name: TRUNKLINE_TLS_CA, value: /etc/trunkline/tls/ca.crt}
{{- end }}
{{- if .policy }}
- {name: TRUNKLINE_POLICY_DIR, value: /etc/trunkline/policy}
{{- end }}
{{- end -}}
