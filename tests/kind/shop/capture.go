package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	// packetMax holds a packet that the kernel has merged from many, in bytes.
	packetMax = 1 << 17
	// receiveBuffer is the size of the kernel buffer for the time in which we are not scheduled, in bytes.
	receiveBuffer = 16 << 20
	// pollEvery is the interval of checking for the end while nothing arrives.
	pollEvery = 100 * time.Millisecond
	// restMax is how long reading the packets from before the end may take.
	restMax = 5 * time.Second

	protocolTCP     = 6
	solPacket       = 263
	packetStatistic = 6
	// TLS record types (RFC 8446 §5.1): handshake, application data.
	tlsHandshake, tlsData = 0x16, 0x17
	tlsMajor              = 0x03
)

// seen counts packets. Dropped ones exceeded the kernel buffer; a capture with dropped packets proves nothing.
type seen struct {
	Packets int    `json:"packets"`
	Dropped uint32 `json:"dropped"`
	// Marker: packets of any protocol that contain it.
	Marker int `json:"marker"`
	// Port: TCP packets from or to it.
	Port int `json:"port"`
	// TLS: those of them whose payload begins as a TLS record.
	TLS int `json:"tls"`
}

// note counts one packet, which begins with its IP header.
func (s *seen) note(packet []byte, port uint16, marker []byte) {
	s.Packets++
	if len(marker) > 0 && bytes.Contains(packet, marker) {
		s.Marker++
	}
	segment := tcp(packet)
	if len(segment) < 20 {
		return
	}
	if binary.BigEndian.Uint16(segment) != port && binary.BigEndian.Uint16(segment[2:]) != port {
		return
	}
	s.Port++
	header := int(segment[12]>>4) * 4
	if len(segment) < header+3 {
		return
	}
	payload := segment[header:]
	if (payload[0] == tlsHandshake || payload[0] == tlsData) && payload[1] == tlsMajor {
		s.TLS++
	}
}

// tcp is the TCP segment of an IP packet, or nothing. IPv6 extension headers are not followed.
func tcp(packet []byte) []byte {
	if len(packet) < 20 {
		return nil
	}
	switch packet[0] >> 4 {
	case 4:
		header := int(packet[0]&0xf) * 4
		length := int(binary.BigEndian.Uint16(packet[2:]))
		if packet[9] == protocolTCP && header <= length && length <= len(packet) {
			return packet[header:length]
		}
	case 6:
		if len(packet) >= 40 && packet[6] == protocolTCP {
			return packet[40:]
		}
	}
	return nil
}

// capture runs until its time is over or SIGTERM arrives, and reads all packets from before that.
func capture(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("capture", flag.ExitOnError)
	iface := flags.String("iface", "eth0", "interface to listen on")
	port := flags.Uint("port", 15008, "TCP port to count")
	marker := flags.String("marker", "", "text to look for in packets")
	seconds := flags.Float64("seconds", 5, "how long at most; SIGTERM ends it sooner")
	_ = flags.Parse(args)
	socket, err := packetSocket(*iface)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", *iface, err)
	}
	defer syscall.Close(socket)
	fmt.Printf("capturing on %s for %g s\n", *iface, *seconds)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*seconds*float64(time.Second)))
	defer cancel()
	var counts seen
	packet := make([]byte, packetMax)
	// receive notes one packet; false when there was none.
	receive := func(flags int) (bool, error) {
		n, _, err := syscall.Recvfrom(socket, packet, flags)
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
			return errors.Is(err, syscall.EINTR), nil
		}
		if err == nil {
			counts.note(packet[:n], uint16(*port), []byte(*marker))
		}
		return true, err
	}
	for ctx.Err() == nil {
		if _, err := receive(0); err != nil {
			return err
		}
	}
	for end, more := time.Now().Add(restMax), true; more; {
		if time.Now().After(end) {
			return fmt.Errorf("what came before the end was not read within %s", restMax)
		}
		if more, err = receive(syscall.MSG_DONTWAIT); err != nil {
			return err
		}
	}
	if counts.Dropped, err = dropped(socket); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(counts)
}

// packetSocket receives every packet of the interface, both ways, from its IP header on. It is made with no protocol,
// so that nothing of other interfaces is in it before it is bound.
func packetSocket(iface string) (int, error) {
	device, err := net.InterfaceByName(iface)
	if err != nil {
		return 0, err
	}
	all := uint16(syscall.ETH_P_ALL)<<8 | uint16(syscall.ETH_P_ALL)>>8
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	wait := syscall.NsecToTimeval(pollEvery.Nanoseconds())
	err = errors.Join(
		syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, receiveBuffer),
		syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait),
		syscall.Bind(socket, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: device.Index}),
	)
	if err != nil {
		syscall.Close(socket)
		return 0, err
	}
	return socket, nil
}

// dropped returns how many packets exceeded the kernel buffer (struct tpacket_stats: packets, drops).
func dropped(socket int) (uint32, error) {
	var statistics [2]uint32
	size := uint32(unsafe.Sizeof(statistics))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(socket), solPacket, packetStatistic,
		uintptr(unsafe.Pointer(&statistics)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return statistics[1], nil
}
