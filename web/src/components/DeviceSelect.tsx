export function DeviceSelect({
  id,
  label,
  devices,
  value,
  onChange,
}: {
  id: string;
  label: string;
  devices: { deviceId: string; label: string }[];
  value: string;
  onChange: (id: string) => void;
}) {
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} disabled={devices.length === 0} onChange={(event) => onChange(event.target.value)}>
        {devices.length === 0 && <option value="">None found yet</option>}
        {devices.length > 0 && !devices.some((d) => d.deviceId === value) && <option value={value}>Default</option>}
        {devices.map((device, i) => (
          <option key={device.deviceId} value={device.deviceId}>
            {device.label || `${label} ${i + 1}`}
          </option>
        ))}
      </select>
    </div>
  );
}
