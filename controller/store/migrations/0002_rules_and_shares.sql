-- What jobs ask beyond resources, what attempts were given, what devices have beyond a vector.
ALTER TABLE jobs ADD COLUMN rules TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN given TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN accelerators TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN extras TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN core_speed_milli INTEGER NOT NULL DEFAULT 1000;
ALTER TABLE devices ADD COLUMN taints TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN doubt TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN pin TEXT NOT NULL DEFAULT '';
