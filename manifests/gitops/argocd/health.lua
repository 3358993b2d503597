-- Health of an InferenceEngine for Argo CD: the verdict of kstatus, and Suspended for what was told to be.
local health = { status = "Progressing", message = "Waiting for the operator" }
if obj.metadata ~= nil and obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end
if obj.status == nil or obj.status.observedGeneration == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see the newest spec"
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
local function holds(name)
  return found[name] ~= nil and found[name].status == "True"
end
local function say(condition)
  local reason = condition.reason or ""
  local message = condition.message or ""
  if message == "" then
    return reason
  end
  return reason .. ": " .. message
end
if holds("Reconciling") then
  health.message = say(found["Reconciling"])
  return health
end
if holds("Stalled") then
  health.status = "Degraded"
  health.message = say(found["Stalled"])
  return health
end
local ready = found["Ready"]
if ready == nil then
  return health
end
health.message = say(ready)
if ready.status == "True" then
  health.status = "Healthy"
elseif ready.reason == "Suspended" then
  health.status = "Suspended"
end
return health
