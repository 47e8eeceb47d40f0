package alloc

import "golang.org/x/sys/windows"

func space(dir string) (free, total int64, ok bool) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, false
	}
	var available, all, unused uint64
	if err := windows.GetDiskFreeSpaceEx(path, &available, &all, &unused); err != nil {
		return 0, 0, false
	}
	return int64(available), int64(all), true
}
